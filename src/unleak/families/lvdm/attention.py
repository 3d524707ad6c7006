"""Attention over space, over time and to text and image tokens. No scores are kept, and no token is repeated."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention import FeedForward
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

_MOST_SEQUENCES = 2**15
"""Sequences attended at once: a CUDA grid is at most 65,535 deep, and a large video has more positions than that."""


@dataclass(frozen=True)
class Tokens:
    """What a clip of `frames` frames is told: the text, the same for all frames, and the image.

    `image` has the tokens of each clip (b) or, if `per_frame`, those of each of its frames (b f).
    """

    frames: int
    text: Float[Tensor, "b l d"]
    image: Float[Tensor, "n k d"] | None = None
    per_frame: bool = False


class Attention(nn.Module):
    """Multi-head attention of queries to themselves, or to text and, with weights of their own, to image tokens."""

    def __init__(
        self,
        dim: int,
        heads: int,
        head_dim: int,
        *,
        context_dim: int | None = None,
        image: bool = False,
        learnable_image_scale: bool = False,
    ):
        super().__init__()
        inner = heads * head_dim
        self.heads = heads
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_k = nn.Linear(context_dim or dim, inner, bias=False)
        self.to_v = nn.Linear(context_dim or dim, inner, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(inner, dim)])
        if image:
            self.to_k_ip = nn.Linear(context_dim or dim, inner, bias=False)
            self.to_v_ip = nn.Linear(context_dim or dim, inner, bias=False)
        self.image_scale = nn.Parameter(self.to_q.weight.new_zeros(())) if learnable_image_scale else None

    def forward(self, x: Float[Tensor, "n l c"], tokens: Tokens | None = None) -> Float[Tensor, "n l c"]:
        """Attend to oneself, or to `tokens`; then sequences are the frames of clips, n = b f."""
        q = self.to_q(x)
        if tokens is None:
            out = self._attend(q, self.to_k(x), self.to_v(x))
        else:
            # All frames of a clip ask the same keys, so they are one sequence.
            clips = rearrange(q, "(b f) l c -> b (f l) c", f=tokens.frames)
            out = self._attend(clips, self.to_k(tokens.text), self.to_v(tokens.text)).reshape(q.shape)
            if tokens.image is not None:
                asking = q if tokens.per_frame else clips
                image = self._attend(asking, self.to_k_ip(tokens.image), self.to_v_ip(tokens.image))
                image = image.reshape(q.shape)
                out = out + (image if self.image_scale is None else image * (self.image_scale.tanh() + 1))
        return self.to_out[0](out)

    def _attend(
        self, q: Float[Tensor, "n l c"], k: Float[Tensor, "n m c"], v: Float[Tensor, "n m c"]
    ) -> Float[Tensor, "n l c"]:
        q, k, v = (rearrange(t, "n l (h d) -> n h l d", h=self.heads) for t in (q, k, v))
        if len(q) <= _MOST_SEQUENCES:
            out = F.scaled_dot_product_attention(q, k, v)
        else:
            parts = zip(*(t.split(_MOST_SEQUENCES) for t in (q, k, v)), strict=True)
            out = torch.cat([F.scaled_dot_product_attention(*part) for part in parts])
        return rearrange(out, "n h l d -> n l (h d)")


class TransformerBlock(nn.Module):
    """Attention to oneself, to `tokens` (again to oneself without), and a feed-forward layer."""

    def __init__(self, dim: int, heads: int, head_dim: int, **to_tokens: Any):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn1 = Attention(dim, heads, head_dim)
        self.attn2 = Attention(dim, heads, head_dim, **to_tokens)
        self.ff = FeedForward(dim, activation_fn="geglu")

    def forward(self, x: Float[Tensor, "n l c"], tokens: Tokens | None = None) -> Float[Tensor, "n l c"]:
        """One residual step each."""
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), tokens)
        return x + self.ff(self.norm3(x))
