"""PIA (Zhang et al. 2023)."""

from unleak.families.family import Argument, Family
from unleak.families.pia.models import BASES, ROWS

__all__ = ["FAMILY"]

FAMILY = Family(
    "pia",
    models=ROWS,
    bases=BASES,
    views={"PIAPipeline": "unleak.families.pia.view:PIAView"},
    fps={"PIAPipeline": 8},
    arguments=(
        Argument("motion_scale", "0 to 2 little to much motion, 3 to 5 the same as a loop, 6 to 8 another style", 0, 8),
    ),
    pixels_at_once={"PIAPipeline": 1},  # frame by frame
)
