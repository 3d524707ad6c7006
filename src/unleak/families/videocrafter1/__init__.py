"""VideoCrafter1 (Chen et al. 2023)."""

from unleak.families.family import Family
from unleak.families.lvdm import PIXELS_AT_ONCE
from unleak.families.videocrafter1.models import ROWS

__all__ = ["FAMILY"]

FAMILY = Family(
    "videocrafter1",
    models=ROWS,
    views={"VideoCrafter1Pipeline": "unleak.families.videocrafter1.view:VideoCrafter1View"},
    pipelines={"VideoCrafter1Pipeline": "unleak.families.videocrafter1.pipeline:VideoCrafter1Pipeline"},
    fps={"VideoCrafter1Pipeline": 8},  # as its authors' scripts play it, whatever rate the network is told
    pixels_at_once={"VideoCrafter1Pipeline": PIXELS_AT_ONCE},
)
