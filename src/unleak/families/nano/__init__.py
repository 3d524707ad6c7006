"""nano, the model that is shipped with unleak: a small Stable Video Diffusion, which has its view."""

from unleak.families.family import Family
from unleak.families.nano.models import ROWS

__all__ = ["FAMILY"]

FAMILY = Family(
    "nano",
    models=ROWS,
)
