"""What a step of training asks of a network: one objective for each way in which families are trained."""

from typing import Any

from unleak.train.config import Recipe
from unleak.train.objectives.flow import FlowObjective
from unleak.train.objectives.objective import Objective
from unleak.train.objectives.sigma import SigmaObjective
from unleak.train.objectives.timestep import TimestepObjective

__all__ = ["Objective", "objective_class"]

_BY_NAME: dict[str, type[Objective]] = {
    "sigma": SigmaObjective,
    "timestep": TimestepObjective,
    "flow": FlowObjective,
}


def objective_class(view: Any) -> type[Objective]:
    """Return the objective of a view, by what it says its family is trained on."""
    return _BY_NAME[view.trained_on]


def faults(recipe: Recipe, view: Any) -> list[str]:
    """Say what the family of a view (its class) cannot honour in a recipe, one sentence each."""
    return objective_class(view).faults(recipe, view)
