"""Finds the photo's tokens in the self-attention of a ComfyUI model, and lets the model attend to them less.

ComfyUI's video transformers call `optimized_attention`, which uses `optimized_attention_override` of the
`transformer_options` in its place where there is one. Model classes are recognised by name.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, zeros

from unleak.attach.seams.tokens import Tokens
from unleak.attach.strategies.reference_bias import with_a_channel

__all__ = ["BiasedAttention", "Patch", "photo_tokens"]


@dataclass(frozen=True)
class Patch:
    """How a transformer cuts latents [b c f h w] into tokens, frame after frame, the photo first."""

    frames: int
    height: int
    width: int
    joined: bool = False
    """Whether the tokens of the prompt are in the same attention, behind those of the video."""

    def tokens(self, shape: Sequence[int]) -> Tokens:
        """Return the tokens of latents of that shape; a border that is no whole patch is padded to one."""
        f, h, w = shape[-3:]
        frame = -(-h // self.height) * -(-w // self.width)
        return Tokens(-(-f // self.frames) * frame, slice(0, frame), self.joined)


def photo_tokens(model: Any) -> Patch:
    """Return how `model` (a ComfyUI ModelPatcher) makes tokens; ValueError if its photo is no frame of tokens."""
    inner = model.model
    name, network = type(inner).__name__, inner.diffusion_model
    if name in ("LTXV", "LTXAV"):
        return Patch(1, 1, 1)
    wan = name in ("WAN21", "WAN22")
    if wan and (name == "WAN22" or _beside(model)):
        return Patch(*network.patch_size)
    if name in ("HunyuanVideoI2V", "HunyuanVideoSkyreelsI2V", "HunyuanVideo"):
        frames, height, width = network.patch_size
        return Patch(frames, height, width, joined=True)
    raise ValueError(
        f"ReferenceBias cannot act on this model ({name}): its photo is no frame of tokens in a transformer's"
        " self-attention, or is not known to be. unleak Motion and unleak Start work."
    )


def _beside(model: Any) -> bool:
    """Tell whether a Wan takes more channels than its latents have, as it does for a photo beside the noise."""
    latent = int(model.get_model_object("latent_format").latent_channels)
    return bool(model.model.diffusion_model.patch_embedding.weight.shape[1] > latent)


class BiasedAttention:
    """Attention in place of ComfyUI's: the conditional branch takes `gamma` from its logits for the photo's keys."""

    def __init__(self, gamma: float, tokens: Tokens, *, text: int, earlier: Callable[..., Any] | None = None) -> None:
        """text: number of tokens of the prompt. earlier: the function that another pack has put in place already."""
        if not tokens.joined and text == tokens.count:
            raise ValueError(
                f"ReferenceBias cannot tell the video's attention from the prompt's: both have {text} tokens. Choose"
                " another size or length."
            )
        self.gamma, self.tokens, self.text, self.earlier, self.found = gamma, tokens, text, earlier, 0

    def __call__(self, attention: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, heads: int, *args: Any,
                 skip_reshape: bool = False, skip_output_reshape: bool = False, **kwargs: Any) -> Tensor:  # fmt: skip
        """Attend as `attention` does, with the bias where this is the video's own attention.

        q, k, v: [b n (h d)], or [b h n d] with `skip_reshape`; the result is [b n (h d)], or [b h n d] with
        `skip_output_reshape`. args, kwargs: mask, precision and options, handed on.
        """
        used = attention if self.earlier is None else _bound(self.earlier, attention)
        shapes = {"skip_reshape": skip_reshape, "skip_output_reshape": skip_output_reshape}
        lengths = {x.shape[2 if skip_reshape else 1] for x in (q, k)}
        if len(lengths) > 1 or not self._of_the_video(*lengths):
            return used(q, k, v, heads, *args, **shapes, **kwargs)
        self.found += 1
        if not skip_reshape:
            q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))

        def plain(query: Tensor, key: Tensor, value: Tensor, *, scale: float) -> Tensor:
            query = query * (scale * query.shape[-1] ** 0.5)  # ComfyUI divides by the root of the width itself
            return used(query, key, value, heads, *args, skip_reshape=True, skip_output_reshape=True, **kwargs)

        bias = self._bias(q, k, kwargs.get("transformer_options") or {})
        result = with_a_channel(plain, bias, q, k, v, None, {})
        return result if skip_output_reshape else result.transpose(1, 2).flatten(2)

    def check(self) -> None:
        """Raise ValueError if no attention of the video came by."""
        if not self.found:
            raise ValueError(
                "ReferenceBias found no self-attention over the video's tokens: another node replaces it, or the video"
                " holds more than its frames (a reference picture). Take unleak Reference Bias out."
            )

    def _of_the_video(self, length: int) -> bool:
        if self.tokens.joined:
            return self.tokens.count < length != self.text
        return length == self.tokens.count

    def _bias(self, q: Tensor, k: Tensor, options: dict[str, Any]) -> Float[Tensor, "b 1 1 n"]:
        branches = options.get("cond_or_uncond") or [0]
        bias = zeros(len(branches), len(q) // len(branches), 1, 1, k.shape[-2], device=k.device)
        for i, branch in enumerate(branches):
            if branch == 0:  # the conditional one
                bias[i, ..., self.tokens.image] = -self.gamma
        return bias.flatten(0, 1)


def _bound(override: Callable[..., Tensor], attention: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return `override` as an attention of its own."""
    return lambda *args, **kwargs: override(attention, *args, **kwargs)
