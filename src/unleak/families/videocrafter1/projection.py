"""VideoCrafter1's plain image projection. Its released checkpoint uses the resampler instead."""

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


class LinearProjection(ModelMixin, ConfigMixin):
    """The pooled CLIP embedding of an image to `num_tokens` tokens.

    Args:
        embedding_dim: channels of the embedding.
        output_dim: channels of the tokens.
        num_tokens: how many.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, embedding_dim: int = 1024, output_dim: int = 1024, num_tokens: int = 4):
        super().__init__()
        self.proj = nn.Linear(embedding_dim, num_tokens * output_dim)
        self.norm = nn.LayerNorm(output_dim)

    def forward(self, embedding: Float[Tensor, "b e"]) -> Float[Tensor, "b k d"]:
        """Tokens of the embedding."""
        return self.norm(rearrange(self.proj(embedding), "b (k d) -> b k d", k=self.config.num_tokens))
