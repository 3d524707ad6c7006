"""Motif-Video (2026), of which no model has a name here."""

from unleak.families.family import Family

__all__ = ["FAMILY"]

FAMILY = Family(
    "motif",
    fps={"MotifVideoImage2VideoPipeline": 24},
)
