"""Animate-Anything (Dai et al. 2023)."""

from unleak.families.animate_anything.models import ROWS
from unleak.families.family import Family

__all__ = ["FAMILY"]

FAMILY = Family(
    "animate_anything",
    models=ROWS,
    views={"AnimateAnythingPipeline": "unleak.families.animate_anything.view:AnimateAnythingView"},
    pipelines={"AnimateAnythingPipeline": "unleak.families.animate_anything.pipeline:AnimateAnythingPipeline"},
    fps={"AnimateAnythingPipeline": 8},
)
