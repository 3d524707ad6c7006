"""The layers of the UNet. Each takes and gives frames `(b f) c h w`; what mixes frames sees them as `b c f (h w)`.

In channels-last memory both are views of the same numbers, so going from space to time and back copies nothing. Every
layer has one signature, `layer(x, condition)`, and takes of the condition what it needs.
"""

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from unleak.families.lvdm.attention import Tokens, TransformerBlock

GROUPS = 32


@dataclass(frozen=True)
class Condition:
    """What every layer may ask for: an embedding of time and frame rate for each clip, and the tokens."""

    embedding: Float[Tensor, "b e"]
    tokens: Tokens

    @property
    def frames(self) -> int:
        """Frames of a clip."""
        return self.tokens.frames


class NormedConv(nn.Module):
    """Group normalisation, SiLU, dropout and a convolution."""

    def __init__(self, channels: int, conv: nn.Conv2d, *, dropout: float = 0.0):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.dropout = nn.Dropout(dropout)
        self.conv = conv

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h w"]:
        """Of a picture of any two axes."""
        return self.conv(self.dropout(F.silu(self.norm(x))))


class ResBlock(nn.Module):
    """Two convolutions of each frame, the second told the embedding; then, if `temporal`, four over time."""

    def __init__(
        self, channels: int, out_channels: int, embedding: int, *, dropout: float = 0.0, temporal: bool = True
    ):
        super().__init__()
        self.conv1 = NormedConv(channels, nn.Conv2d(channels, out_channels, 3, padding=1))
        self.embed = nn.Linear(embedding, out_channels)
        self.conv2 = NormedConv(out_channels, nn.Conv2d(out_channels, out_channels, 3, padding=1), dropout=dropout)
        self.shortcut = nn.Conv2d(channels, out_channels, 1) if channels != out_channels else nn.Identity()
        over_time = [nn.Conv2d(out_channels, out_channels, (3, 1), padding=(1, 0)) for _ in range(4 * temporal)]
        self.temporal = nn.ModuleList(
            NormedConv(out_channels, conv, dropout=0.1 * (i > 0)) for i, conv in enumerate(over_time)
        )

    def forward(self, x: Float[Tensor, "bf c h w"], condition: Condition) -> Float[Tensor, "bf k h w"]:
        """Add what the convolutions find."""
        embedding = self.embed(F.silu(condition.embedding)).repeat_interleave(condition.frames, dim=0)
        h = self.conv2(self.conv1(x) + embedding[:, :, None, None])
        h = h + self.shortcut(x)
        if not self.temporal:
            return h
        clips = over_time = as_clips(h, condition.frames)
        for layer in self.temporal:
            over_time = layer(over_time)
        return as_frames(clips + over_time, height=x.shape[2], frames=condition.frames)


class SpatialTransformer(nn.Module):
    """Attention within each frame, and to the tokens."""

    def __init__(self, channels: int, heads: int, head_dim: int, depth: int, **to_tokens: Any):
        super().__init__()
        inner = heads * head_dim
        self.norm = nn.GroupNorm(GROUPS, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, inner)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(inner, heads, head_dim, **to_tokens) for _ in range(depth)
        )
        self.proj_out = nn.Linear(inner, channels)

    def forward(self, x: Float[Tensor, "bf c h w"], condition: Condition) -> Float[Tensor, "bf c h w"]:
        """Add what the attention finds."""
        tokens = self.proj_in(rearrange(self.norm(x), "n c h w -> n (h w) c"))
        for block in self.transformer_blocks:
            tokens = block(tokens, condition.tokens)
        return x + rearrange(self.proj_out(tokens), "n (h w) c -> n c h w", h=x.shape[2])


class TemporalTransformer(nn.Module):
    """Attention along time at each position; it has no positional code, so clips may have any length."""

    def __init__(self, channels: int, heads: int, head_dim: int, depth: int):
        super().__init__()
        inner = heads * head_dim
        self.norm = nn.GroupNorm(GROUPS, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, inner)
        self.transformer_blocks = nn.ModuleList(TransformerBlock(inner, heads, head_dim) for _ in range(depth))
        self.proj_out = nn.Linear(inner, channels)

    def forward(self, x: Float[Tensor, "bf c h w"], condition: Condition) -> Float[Tensor, "bf c h w"]:
        """Add what the attention finds."""
        clips = as_clips(x, condition.frames)
        tokens = rearrange(self.norm(clips), "b c f p -> (b p) f c")
        tokens = self.proj_in(tokens)
        for block in self.transformer_blocks:
            tokens = block(tokens)
        found = rearrange(self.proj_out(tokens), "(b p) f c -> b c f p", b=len(clips))
        return as_frames(clips + found, height=x.shape[2], frames=condition.frames)


class Convolution(nn.Module):
    """A 3x3 convolution of each frame, which may halve or first double its sides."""

    def __init__(self, channels: int, out_channels: int, *, stride: int = 1, upsample: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, 3, stride=stride, padding=1)
        self.upsample = upsample

    def forward(self, x: Float[Tensor, "bf c h w"], condition: Condition) -> Float[Tensor, "bf k h2 w2"]:
        """The condition is not asked."""
        del condition
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest") if self.upsample else x)


def as_clips(x: Float[Tensor, "bf c h w"], frames: int) -> Float[Tensor, "b c f hw"]:
    """Frames as pictures of time against position."""
    return rearrange(x, "(b f) c h w -> b c f (h w)", f=frames)


def as_frames(x: Float[Tensor, "b c f hw"], *, height: int, frames: int) -> Float[Tensor, "bf c h w"]:
    """The inverse of `as_clips`."""
    return rearrange(x, "b c f (h w) -> (b f) c h w", h=height, f=frames)
