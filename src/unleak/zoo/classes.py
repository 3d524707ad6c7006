"""The classes that a pipeline's files name: diffusers' own and our families', only those that unleak can attach to."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from unleak.attach.seams import SEAMS, seam_of_class
from unleak.families.registry import found_in, imported
from unleak.zoo.source import Source, one_line

__all__ = [
    "FAMILIES",
    "library_class",
    "own_parts",
    "part_class",
    "pipeline_class",
    "scheduler_from",
    "seam_of_class",
]

FAMILIES = "unleak.families"
_SCHEDULERS = {"LVDMScheduler": f"{FAMILIES}.lvdm.scheduler"}


def pipeline_class(name: str) -> Any:
    """The pipeline class called `name`, diffusers' or ours; ValueError if it is none, or none that has a seam."""
    from diffusers import DiffusionPipeline

    if native := found_in("pipelines", name):
        return imported(native)
    found = _diffusers(name, DiffusionPipeline)
    if found is None:
        raise ValueError(f"{name} is no pipeline of the diffusers that is installed; unleak knows {_known()}")
    seam_of_class(found)
    return found


def own_parts(pipeline: str) -> frozenset[tuple[str, str]]:
    """Return (module, class) of each component class of ours that a folder of the pipeline class may name.

    The classes stand in the pipeline class itself, as `unleak_parts`. Their modules are therefore imported with it,
    and diffusers, which imports no module because a folder names it, finds them.
    """
    parts = getattr(pipeline_class(pipeline), "unleak_parts", ()) if found_in("pipelines", pipeline) else ()
    return frozenset((part.__module__, part.__name__) for part in parts)


def library_class(name: str) -> Any:
    """The diffusers pipeline class called `name`, whether or not unleak can attach to it."""
    from diffusers import DiffusionPipeline

    found = _diffusers(name, DiffusionPipeline)
    assert found is not None, name
    return found


def part_class(folder: Path) -> Any:
    """Find the diffusers model class that a part's config.json names; ValueError if it names none."""
    from diffusers import ModelMixin

    name = Source(str(folder)).read("config.json").get("_class_name")
    found = _diffusers(str(name), ModelMixin)
    if found is None:
        raise ValueError(f"{folder}: its config.json names {name!r}, which is no model class of diffusers: refused")
    return found


def scheduler_from(config: Mapping[str, Any]) -> Any:
    """The scheduler that a `scheduler_config.json` describes; None if it describes none of diffusers' and ours."""
    from diffusers import SchedulerMixin

    name = str(config.get("_class_name"))
    native = _SCHEDULERS.get(name)
    found = getattr(import_module(native), name) if native else _diffusers(name, SchedulerMixin)
    try:
        return None if found is None else found.from_config(dict(config))
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:  # seen for wrong values
        raise ValueError(
            f"the configuration of the {name} is damaged ({one_line(error)}); save or download the model again"
        ) from error


def _diffusers(name: str, base: type) -> Any:
    import diffusers

    # A dot or an underscore would reach past the classes that diffusers shows.
    found = getattr(diffusers, name, None) if name.isidentifier() and name[0].isupper() else None
    return found if isinstance(found, type) and issubclass(found, base) else None


def _known() -> str:
    return ", ".join(sorted(SEAMS))
