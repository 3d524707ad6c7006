"""The names by which ComfyUI, which follows the network's authors, knows the layers of Wan."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unleak.families.keys import renamed

__all__ = ["comfyui"]

_ORIGINAL = (
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".o."),
    (r"\.add_([kv])_proj\.", r".\1_img."),
    (r"\.ffn\.net\.0\.proj\.", ".ffn.0."),
    (r"\.ffn\.net\.2\.", ".ffn.2."),
)


def comfyui(network: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return adapters of the network by ComfyUI's names; none for a network that ComfyUI does not have."""
    if type(network).__name__ != "WanTransformer3DModel":
        return {}
    return renamed(tensors, _ORIGINAL)
