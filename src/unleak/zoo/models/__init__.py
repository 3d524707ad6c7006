"""The models that have a name here: one file for each family, data only.

A new model is a row in its family's file; a new family a file with `ROWS`, listed here.
"""

from collections.abc import Mapping

from unleak.zoo.models import (
    animate_anything,
    cogvideox,
    dynamicrafter,
    hunyuan,
    kandinsky,
    ltx,
    nano,
    pia,
    sana,
    skyreels,
    svd,
    videocrafter1,
    wan,
)
from unleak.zoo.spec import ModelSpec

__all__ = ["MODELS", "base_of"]

_FAMILIES = (
    nano,
    svd,
    dynamicrafter,
    videocrafter1,
    animate_anything,
    pia,
    wan,
    cogvideox,
    hunyuan,
    ltx,
    skyreels,
    kandinsky,
    sana,
)

MODELS: Mapping[str, ModelSpec] = {spec.name: spec for family in _FAMILIES for spec in family.ROWS}
"""Name -> model, in the order of the table."""


def base_of(spec: ModelSpec) -> ModelSpec:
    """The model whose other parts go with the one part that `spec` is."""
    assert spec.base is not None
    return MODELS.get(spec.base) or next(base for base in pia.BASES if base.name == spec.base)
