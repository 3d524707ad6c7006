"""Wan 2.1 and 2.2 (Alibaba 2025)."""

from unleak.families.family import Family
from unleak.families.wan.models import ROWS

__all__ = ["FAMILY"]

FAMILY = Family(
    "wan",
    models=ROWS,
    views={"WanImageToVideoPipeline": "unleak.families.wan.view:WanView"},
    in_float32={"WanImageToVideoPipeline": ("vae", "image_encoder")},  # as in diffusers' own example
    adapter_names="unleak.families.wan.keys:comfyui",
)
