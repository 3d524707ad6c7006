"""Stable Video Diffusion (Blattmann et al. 2023)."""

from unleak.families.family import Argument, Family
from unleak.families.svd.models import ROWS

__all__ = ["FAMILY"]

FAMILY = Family(
    "svd",
    models=ROWS,
    views={"StableVideoDiffusionPipeline": "unleak.families.svd.view:SVDView"},
    adapter_names="unleak.families.svd.keys:comfyui",
    arguments=(Argument("motion_bucket_id", "how much motion the model is asked for: 1 to 255, more is more"),),
)
