"""What a recipe asks for and this model, this machine or this folder cannot give, found before anything is loaded."""

from importlib.util import find_spec

from unleak.data.atomic import check_writable
from unleak.families.registry import families, family_of
from unleak.families.view import View, view_class
from unleak.train import checkpoint
from unleak.train.config import Recipe, RecipeError, SyntheticData
from unleak.train.export import export_folder
from unleak.train.objectives import faults
from unleak.zoo.registry import ModelSpec, find_model

__all__ = ["check", "shapes_of"]


def check(recipe: Recipe) -> ModelSpec:
    """Return the recipe's model. Raise RecipeError, one line for each fault, if the recipe cannot be run.

    Nothing is loaded and nothing is written.
    """
    spec = find_model(recipe.model)
    if (view := trainable_view(spec.pipeline)) is None:
        known = ", ".join(name for family in families() for name in family.views if trainable_view(name))
        raise RecipeError(f"model: {spec.name} is a {spec.pipeline}; those that can be trained are {known}")
    found = faults(recipe, view)
    for height, width, frames in shapes_of(recipe):
        if height % spec.size_multiple or width % spec.size_multiple:
            found.append(
                f"data.size: clips of {height}x{width} pixels; this model needs multiples of {spec.size_multiple}"
            )
        if (frames - 1) % spec.frame_multiple:
            found.append(f"data.num_frames: {frames}; this model needs multiples of {spec.frame_multiple}, plus 1")
    found += [
        f"{key}: needs {package}, which is not installed; pip install {package}"
        for key, package in _packages(recipe)
        if find_spec(package) is None
    ]
    if recipe.sharding == "fsdp":
        found += _whole_only(recipe)
    made = export_folder(recipe)
    if made.exists() and checkpoint.latest(recipe.output / "checkpoints") is None:
        found.append(f"output: {made} is of another run: choose another output, or move it away")
    if found:
        raise RecipeError("\n".join(dict.fromkeys(found)))
    check_writable(recipe.output)
    return spec


def trainable_view(pipeline: str) -> type[View] | None:
    """Return the view of a pipeline class if its family can be trained."""
    if family_of(pipeline) is None:
        return None
    view = view_class(pipeline)
    return view if view.trained_on else None


def shapes_of(recipe: Recipe) -> list[tuple[int, int, int]]:
    """Return (height, width, frames) of a recipe's clips: of each bucket, or the one shape."""
    data = recipe.data
    if isinstance(data, SyntheticData):
        return [(data.size, data.size, data.num_frames)]
    return data.buckets or [(*data.size, data.num_frames)]


def _packages(recipe: Recipe) -> list[tuple[str, str]]:
    """Pair each key of the recipe that needs a package with that package."""
    needed: list[tuple[str, str]] = [("report_to", recipe.report_to)] if recipe.report_to != "none" else []
    needed += [("optimizer: adamw8bit", "bitsandbytes")] if recipe.optimizer == "adamw8bit" else []
    needed += [("validation: its motion score", "cv2")] if recipe.validation else []
    return needed + ([("trainable: lora", "peft")] if recipe.lora else [])


def _whole_only(recipe: Recipe) -> list[str]:
    """Name what the recipe asks for that needs whole weights."""
    found = []
    if recipe.optimizer != "adamw":
        found.append(f"optimizer: {recipe.optimizer} needs whole weights; with sharding: fsdp give adamw")
    if recipe.motion_readout:
        found.append("motion_readout: needs whole weights; with sharding: fsdp leave it away")
    if recipe.experts == "both":
        found.append(
            "experts: both: the processes would wait for each other's parts of a network that not all of them use in a "
            "step; with sharding: fsdp train high and low in two runs"
        )
    return found
