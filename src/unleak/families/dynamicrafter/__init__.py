"""DynamiCrafter (Xing et al. 2023)."""

from unleak.families.dynamicrafter.models import ROWS
from unleak.families.family import Argument, Family
from unleak.families.lvdm import PIXELS_AT_ONCE

__all__ = ["FAMILY"]

FAMILY = Family(
    "dynamicrafter",
    models=ROWS,
    views={"DynamiCrafterPipeline": "unleak.families.dynamicrafter.view:DynamiCrafterView"},
    pipelines={"DynamiCrafterPipeline": "unleak.families.dynamicrafter.pipeline:DynamiCrafterPipeline"},
    fps={"DynamiCrafterPipeline": 8},  # as its authors' scripts play it, whatever rate the network is told
    arguments=(
        Argument("frame_stride", "frames of the training video between two frames: more asks for larger steps"),
    ),
    pixels_at_once={"DynamiCrafterPipeline": PIXELS_AT_ONCE},
)
