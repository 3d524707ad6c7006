"""The model families that unleak knows, its own and registered ones, and what they say of models and classes."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from unleak.core.plugins import load_plugins
from unleak.families.family import Family
from unleak.families.spec import ModelSpec

__all__ = [
    "MODELS",
    "Family",
    "base_of",
    "families",
    "family_of",
    "found_in",
    "imported",
    "register_family",
    "unregister_family",
    "viewed",
]

_OWN = (
    *("nano", "svd", "dynamicrafter", "videocrafter1", "animate_anything", "pia", "wan", "cogvideox", "hunyuan", "ltx"),
    *("skyreels", "kandinsky", "sana", "motif", "consisid"),
)
_REGISTERED: dict[str, Family] = {}


def families() -> tuple[Family, ...]:
    """Return all families, unleak's own first."""
    load_plugins()
    own = (import_module(f"unleak.families.{name}").FAMILY for name in _OWN)
    return (*own, *_REGISTERED.values())


def register_family(family: Family) -> None:
    """Make a family known. Raises ValueError if its name, a model's name or a pipeline class with a view is taken.

    Registering the same family again changes nothing, so that a module can do it when it is imported.
    """
    if _REGISTERED.get(family.name) == family:
        return
    for other in (*(import_module(f"unleak.families.{name}").FAMILY for name in _OWN), *_REGISTERED.values()):
        if other.name == family.name:
            raise ValueError(f"there is a family {family.name} already: give this one another name")
        names = {spec.name for spec in other.models} & {spec.name for spec in family.models}
        if (
            taken := names
            | (other.views.keys() & family.views.keys())
            | (other.pipelines.keys() & family.pipelines.keys())
        ):
            raise ValueError(f"family {family.name}: {min(taken)} is of the family {other.name} already")
    _REGISTERED[family.name] = family


def unregister_family(name: str) -> None:
    """Forget a registered family; unleak's own stay."""
    _REGISTERED.pop(name, None)


class _Models(Mapping[str, ModelSpec]):
    """Name -> model, in the order of the table; a family that is registered later is there from then on."""

    def __getitem__(self, name: str) -> ModelSpec:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    @staticmethod
    def _all() -> dict[str, ModelSpec]:
        return {spec.name: spec for family in families() for spec in family.models}


MODELS: Mapping[str, ModelSpec] = _Models()


def base_of(spec: ModelSpec) -> ModelSpec:
    """Return the model whose other parts go with the one part that `spec` is."""
    assert spec.base is not None
    bases = (base for family in families() for base in (*family.models, *family.bases))
    return next(base for base in bases if base.name == spec.base)


def found_in(fact: str, pipeline: str) -> Any:
    """Return what the families say of a pipeline class: `fact` is a field of `Family` that maps classes; or None."""
    return next((getattr(f, fact)[pipeline] for f in families() if pipeline in getattr(f, fact)), None)


def family_of(pipeline: str) -> Family | None:
    """Return the family that has a view of a pipeline class, or None."""
    return next((family for family in families() if pipeline in family.views), None)


def viewed(pipeline: str) -> str:
    """Return where the view of a pipeline class is. Raises ValueError for a class whose family has none."""
    where: str | None = found_in("views", pipeline)
    if where is None:
        known = ", ".join(name for family in families() for name in family.views)
        raise ValueError(f"unleak has no view of a {pipeline}; those that have one are {known}")
    return where


def imported(where: str) -> Any:
    """Import what MODULE:NAME says."""
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)
