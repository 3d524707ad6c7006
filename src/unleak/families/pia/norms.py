"""PIA's arithmetic on diffusers' `UNetMotionModel`: which group normalisations see one frame, and which a whole clip.

PIA's own code (github.com/open-mmlab/PIA, `resnet.py` and `motion_module.py`) normalises a clip as a whole in the
residual blocks and at the output, and every frame on its own in the motion modules. diffusers does the reverse. On the
same weights, the two predictions differ by 2.8e-2 (relative L2 norm, published size, random weights).
"""

from collections.abc import Iterator
from typing import Any

from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["NORMS", "use_norms"]

NORMS = ("pia", "diffusers")
"""Whose arithmetic: that of PIA's checkpoints, or that of a network trained with diffusers' own."""

_ENTRY = "norms"
"""The entry of the UNet's configuration that keeps the choice in a saved folder."""


class OverClip(nn.GroupNorm):
    """Group normalisation whose statistics are those of all frames of a clip; `frames` are told by the UNet."""

    frames: int = 1

    def forward(self, x: Float[Tensor, "bf c h w"]) -> Float[Tensor, "bf c h w"]:
        """Normalise clips that come as single frames."""
        clips = rearrange(x, "(b f) c h w -> b c f h w", f=self.frames)
        return rearrange(super().forward(clips), "b c f h w -> (b f) c h w")


class PerFrame(nn.GroupNorm):
    """Group normalisation whose statistics are those of one frame."""

    def forward(self, x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
        """Normalise the frames of clips."""
        frames = rearrange(x, "b c f h w -> (b f) c h w")
        return rearrange(super().forward(frames), "(b f) c h w -> b c f h w", b=len(x))


def use_norms(unet: Any, norms: str | None = None) -> Any:
    """Give a `UNetMotionModel` PIA's arithmetic or diffusers' own, in place; its weights stay as they are.

    norms: "pia" or "diffusers", which the configuration remembers, so that a saved folder keeps it; None: what the
    configuration says, and without an entry "pia". Returns the network. Raises ValueError for another word.
    """
    chosen = norms or unet.config.get(_ENTRY, "pia")
    if chosen not in NORMS:
        raise ValueError(f"norms {chosen!r}: give one of {', '.join(NORMS)}")
    if norms == "diffusers" or _ENTRY in unet.config:
        unet.register_to_config(**{_ENTRY: chosen})
    for norm, kind in _norms(unet):
        norm.__class__ = kind if chosen == "pia" else nn.GroupNorm
    hooks = unet._forward_pre_hooks
    for key in [key for key, hook in hooks.items() if hook is _tell_frames]:
        del hooks[key]
        unet._forward_pre_hooks_with_kwargs.pop(key, None)
    if chosen == "pia":
        unet.register_forward_pre_hook(_tell_frames, with_kwargs=True)
    return unet


def _norms(unet: nn.Module) -> Iterator[tuple[Any, type[nn.GroupNorm]]]:
    """Yield the normalisations that the two differ in, each with PIA's class for it."""
    for module in unet.modules():
        if isinstance(module, ResnetBlock2D):
            yield module.norm1, OverClip
            yield module.norm2, OverClip
        elif isinstance(module, AnimateDiffTransformer3D):
            yield module.norm, PerFrame
    yield unet.conv_norm_out, OverClip


def _tell_frames(unet: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
    sample = positional[0] if positional else named["sample"]
    for module in unet.modules():
        if isinstance(module, OverClip):
            module.frames = sample.shape[2]
