"""LTX-Video and LTX-2 (Lightricks 2024, 2025)."""

from unleak.families.family import Argument, Family
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
    arguments=(
        Argument("motion_speed", "speed of the motion relative to real time: below 1 is slow motion"),
        Argument("image_cond_noise_scale", "noise on the photo's latents: more frees the video from it"),
        Argument("image_crf", "compression of the photo, 0 for none: a photo as compressed as a frame moves more"),
    ),
)
