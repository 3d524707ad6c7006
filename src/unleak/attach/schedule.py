"""Make a scheduler start at a level: one adapter per scheduler class, always applied to a copy."""

import copy
import math
from abc import ABC, abstractmethod
from functools import wraps
from types import MethodType
from typing import Any

from unleak.attach.plan import Mode
from unleak.core.process import VE, Level, NoiseProcess

__all__ = ["ADAPTERS", "ScheduleAdapter", "process_of", "started"]


class ScheduleAdapter(ABC):
    """How schedulers of one class are read and made to start lower. `rescale` and `truncate` change their argument.

    A method put on the instance finds its scheduler in `self`, not in a closure: some pipelines deep-copy schedulers.
    """

    @abstractmethod
    def process(self, scheduler: Any) -> NoiseProcess:
        """The noise process of this scheduler as configured."""

    @abstractmethod
    def rescale(self, scheduler: Any, level: Level) -> None:
        """Space the N steps asked for anew between `level` and the end."""

    @abstractmethod
    def truncate(self, scheduler: Any, level: Level) -> None:
        """Keep the plain grid below `level` and start it there: the same step size, fewer evaluations."""


class EulerVE(ScheduleAdapter):
    """EulerDiscreteScheduler with its own sigma_min and sigma_max, as SVD has it; spaced as Karras or otherwise."""

    def process(self, scheduler: Any) -> VE:
        """VE between sigma_min and sigma_max."""
        config = scheduler.config
        spaced = config.use_karras_sigmas or config.use_exponential_sigmas or config.use_beta_sigmas
        if not (config.sigma_min and config.sigma_max and spaced):
            raise ValueError(
                "this EulerDiscreteScheduler follows betas, not its own sigma_min and sigma_max: give the pipeline the"
                " scheduler of its model (for SVD: use_karras_sigmas, sigma_min 0.002, sigma_max 700)."
            )
        return VE(config.sigma_min, config.sigma_max)

    def rescale(self, scheduler: Any, level: Level) -> None:
        """Present sigma_max = sigma: the grid of a scheduler configured so."""
        scheduler.register_to_config(sigma_max=level.sigma)

    def truncate(self, scheduler: Any, level: Level) -> None:
        """Replace the levels of the plain grid at and above sigma by sigma itself, so the first step may be shorter."""
        plain = type(scheduler).set_timesteps

        @wraps(plain)
        def set_timesteps(self: Any, num_inference_steps: int, device: Any = None) -> None:
            plain(self, num_inference_steps, device)
            grid = self.sigmas.tolist()
            below = [s for s in grid if s < level.sigma and not math.isclose(s, level.sigma, rel_tol=1e-6)]
            plain(self, sigmas=[level.sigma, *below], device=device)

        scheduler.set_timesteps = MethodType(set_timesteps, scheduler)


ADAPTERS: dict[str, ScheduleAdapter] = {"EulerDiscreteScheduler": EulerVE()}
"""Scheduler class name (of the class or a base) -> its adapter."""


def process_of(scheduler: Any) -> NoiseProcess:
    """The noise process that a scheduler samples; ValueError if its class is not known."""
    return _adapter(scheduler).process(scheduler)


def started(scheduler: Any, level: Level, mode: Mode) -> Any:
    """A copy of `scheduler` whose schedules start exactly at `level`; at the full level simply a copy."""
    adapter = _adapter(scheduler)
    scheduler = copy.deepcopy(scheduler)
    if level != adapter.process(scheduler).noisiest:
        {"rescale": adapter.rescale, "truncate": adapter.truncate}[mode](scheduler, level)
    return scheduler


def _adapter(scheduler: Any) -> ScheduleAdapter:
    for base in type(scheduler).__mro__:
        if base.__name__ in ADAPTERS:
            return ADAPTERS[base.__name__]
    raise ValueError(
        f"unleak does not know {type(scheduler).__name__}, so it cannot promise where sampling would start:"
        f" give the pipeline one of {', '.join(ADAPTERS)}."
    )
