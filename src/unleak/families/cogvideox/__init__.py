"""CogVideoX (Zhipu AI 2024)."""

from unleak.families.cogvideox.models import ROWS
from unleak.families.family import Family

__all__ = ["FAMILY"]

FAMILY = Family(
    "cogvideox",
    models=ROWS,
    fps={"CogVideoXImageToVideoPipeline": 8},
)
