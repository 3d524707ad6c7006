"""SANA-Video (NVIDIA 2025)."""

from unleak.families.family import Argument, Family
from unleak.families.sana.models import ROWS

__all__ = ["FAMILY"]

FAMILY = Family(
    "sana",
    models=ROWS,
    takes_image={"SanaVideoPipeline": "SanaImageToVideoPipeline"},
    arguments=(Argument("motion_score", "how much motion the prompt asks for, more is more"),),
)
