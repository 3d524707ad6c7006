"""LTX-Video and LTX-2 (Lightricks 2024, 2025)."""

from unleak.families.family import Family
from unleak.families.ltx.models import ROWS

__all__ = ["FAMILY"]

FAMILY = Family(
    "ltx",
    models=ROWS,
    views={
        "LTXImageToVideoPipeline": "unleak.families.ltx.view:LTXView",
        "LTXConditionPipeline": "unleak.families.ltx.view:LTXView",
    },
    takes_image={"LTXPipeline": "LTXImageToVideoPipeline", "LTX2Pipeline": "LTX2ImageToVideoPipeline"},
    adapter_names="unleak.families.ltx.keys:comfyui",
)
