"""The two forms of pixels: uint8, channels last, at the file border; float in [-1, 1], channels first, inside."""

from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor


def to_unit(frames: UInt8[Tensor, "*batch h w 3"]) -> Float[Tensor, "*batch 3 h w"]:
    """Convert uint8 pixels, channels last, to float32 in [-1, 1], channels first."""
    return rearrange(frames, "... h w c -> ... c h w").float().div_(127.5).sub_(1)
