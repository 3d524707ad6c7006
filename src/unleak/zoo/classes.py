"""The classes that a pipeline's files name: diffusers' own, and only those that unleak can attach to."""

from collections.abc import Mapping
from typing import Any

from unleak.attach.seams import REFUSED, SEAMS, Seam

__all__ = ["pipeline_class", "scheduler_from", "seam_of_class"]


def pipeline_class(name: str) -> Any:
    """The diffusers pipeline class called `name`; ValueError if it is none, or none that has a seam."""
    from diffusers import DiffusionPipeline

    found = _diffusers(name, DiffusionPipeline)
    if found is None:
        raise ValueError(f"{name} is no pipeline of the diffusers that is installed; unleak knows {_known()}")
    seam_of_class(found)
    return found


def seam_of_class(pipeline: type) -> Seam:
    """The seam of a pipeline class or its nearest base; ValueError if it has none."""
    for base in pipeline.__mro__:
        if base.__name__ in SEAMS:
            return SEAMS[base.__name__]
        if base.__name__ in REFUSED:
            raise ValueError(f"unleak cannot attach to a {pipeline.__name__}: {REFUSED[base.__name__]}")
    raise ValueError(f"unleak cannot attach to a {pipeline.__name__}; it knows {_known()}")


def scheduler_from(config: Mapping[str, Any]) -> Any:
    """The scheduler that a `scheduler_config.json` describes; None if it describes none of diffusers'."""
    from diffusers import SchedulerMixin

    found = _diffusers(str(config.get("_class_name")), SchedulerMixin)
    return None if found is None else found.from_config(dict(config))


def _diffusers(name: str, base: type) -> Any:
    import diffusers

    # A dot or an underscore would reach past the classes that diffusers shows.
    found = getattr(diffusers, name, None) if name.isidentifier() and name[0].isupper() else None
    return found if isinstance(found, type) and issubclass(found, base) else None


def _known() -> str:
    return ", ".join(sorted(SEAMS))
