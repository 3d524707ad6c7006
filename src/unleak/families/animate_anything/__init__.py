"""Animate-Anything (Dai et al. 2023)."""

from unleak.families.animate_anything.models import ROWS
from unleak.families.family import Argument, Family

__all__ = ["FAMILY"]

FAMILY = Family(
    "animate_anything",
    models=ROWS,
    views={"AnimateAnythingPipeline": "unleak.families.animate_anything.view:AnimateAnythingView"},
    pipelines={"AnimateAnythingPipeline": "unleak.families.animate_anything.pipeline:AnimateAnythingPipeline"},
    fps={"AnimateAnythingPipeline": 8},
    arguments=(Argument("motion_strength", "how much motion the model is asked for: from 0, more is more"),),
)
