"""The projection of CLIP image features onto the UNet's tokens: a Perceiver, whose learned queries ask the features."""

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


class PerceiverAttention(nn.Module):
    """Queries attend to image features and to themselves, then a feed-forward layer."""

    def __init__(self, dim: int, heads: int, head_dim: int, ff_mult: int):
        super().__init__()
        inner = heads * head_dim
        self.heads = heads
        self.norm_image, self.norm_queries = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)
        self.ff = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, ff_mult * dim, bias=False),
            nn.GELU(),
            nn.Linear(ff_mult * dim, dim, bias=False),
        )

    def forward(self, queries: Float[Tensor, "b q d"], image: Float[Tensor, "b n d"]) -> Float[Tensor, "b q d"]:
        """One residual step each."""
        asking = self.norm_queries(queries)
        known = torch.cat([self.norm_image(image), asking], dim=1)
        k, v = self.to_kv(known).chunk(2, dim=-1)
        q, k, v = (rearrange(t, "b n (h d) -> b h n d", h=self.heads) for t in (self.to_q(asking), k, v))
        out = rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)")
        queries = queries + self.to_out(out)
        return queries + self.ff(queries)


class Resampler(ModelMixin, ConfigMixin):
    """Image features (the hidden states of a CLIP vision model, class token first) to `num_queries` tokens.

    Args:
        dim: channels inside.
        depth: attention layers.
        heads: of each; `head_dim` channels each.
        num_queries: tokens; with `video_length`, of each frame.
        embedding_dim: channels of the features.
        output_dim: channels of the tokens.
        ff_mult: hidden channels of the feed-forward layers as a multiple of `dim`.
        video_length: frames that have tokens of their own (DynamiCrafter); None: the tokens are the clip's.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        dim: int = 1024,
        depth: int = 4,
        head_dim: int = 64,
        heads: int = 12,
        num_queries: int = 16,
        embedding_dim: int = 1280,
        output_dim: int = 1024,
        ff_mult: int = 4,
        video_length: int | None = None,
    ):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(num_queries * (video_length or 1), dim) / dim**0.5)
        self.proj_in = nn.Linear(embedding_dim, dim)
        self.layers = nn.ModuleList(PerceiverAttention(dim, heads, head_dim, ff_mult) for _ in range(depth))
        self.proj_out = nn.Linear(dim, output_dim)
        self.norm_out = nn.LayerNorm(output_dim)

    def forward(self, image: Float[Tensor, "b n e"]) -> Float[Tensor, "b q d"]:
        """Tokens of the features; those of all frames one after the other."""
        image = self.proj_in(image)
        queries = self.queries.expand(len(image), -1, -1)
        for layer in self.layers:
            queries = layer(queries, image)
        return self.norm_out(self.proj_out(queries))
