"""The names by which ComfyUI, which follows the network's authors, knows the layers of LTX-Video."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unleak.families.keys import renamed

__all__ = ["comfyui"]

_ORIGINAL = (
    (r"^proj_in\.", "patchify_proj."),
    (r"^time_embed\.", "adaln_single."),
)


def comfyui(network: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return adapters of the network by ComfyUI's names; none for a network that ComfyUI does not have."""
    if type(network).__name__ != "LTXVideoTransformer3DModel":
        return {}
    return renamed(tensors, _ORIGINAL)
