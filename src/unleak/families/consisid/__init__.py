"""ConsisID (2024), of which no model has a name here."""

from unleak.families.family import Family

__all__ = ["FAMILY"]

FAMILY = Family(
    "consisid",
    fps={"ConsisIDPipeline": 8},
)
