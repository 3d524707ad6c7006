"""Stable Video Diffusion (Blattmann et al. 2023)."""

from unleak.families.family import Family
from unleak.families.svd.models import ROWS

__all__ = ["FAMILY"]

FAMILY = Family(
    "svd",
    models=ROWS,
    views={"StableVideoDiffusionPipeline": "unleak.families.svd.view:SVDView"},
    adapter_names="unleak.families.svd.keys:comfyui",
)
