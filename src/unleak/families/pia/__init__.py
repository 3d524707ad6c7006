"""PIA (Zhang et al. 2023)."""

from unleak.families.family import Family
from unleak.families.pia.models import BASES, ROWS

__all__ = ["FAMILY"]

FAMILY = Family(
    "pia",
    models=ROWS,
    bases=BASES,
    views={"PIAPipeline": "unleak.families.pia.view:PIAView"},
    fps={"PIAPipeline": 8},
)
