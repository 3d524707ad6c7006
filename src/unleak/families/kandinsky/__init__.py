"""Kandinsky 5 (2025)."""

from unleak.families.family import Family
from unleak.families.kandinsky.models import ROWS

__all__ = ["FAMILY"]

FAMILY = Family(
    "kandinsky",
    models=ROWS,
    fps={"Kandinsky5I2VPipeline": 24},
)
