"""SANA-Video (NVIDIA 2025)."""

from unleak.families.family import Family
from unleak.families.sana.models import ROWS

__all__ = ["FAMILY"]

FAMILY = Family(
    "sana",
    models=ROWS,
    takes_image={"SanaVideoPipeline": "SanaImageToVideoPipeline"},
)
