"""Make a scheduler start at a level: one adapter per kind of scheduler, always applied to a copy."""

import copy
from typing import Any

from unleak.attach.plan import Mode
from unleak.attach.schedulers.adapter import ScheduleAdapter
from unleak.attach.schedulers.rf import RectifiedFlow
from unleak.attach.schedulers.ve import VarianceExploding
from unleak.attach.schedulers.vp import (
    PNDM,
    Exploded,
    Singlestep,
    Stochastic,
    VariancePreserving,
    VPStrides,
    VPTimesteps,
)
from unleak.core.process import Level, NoiseProcess

__all__ = ["ADAPTERS", "REFUSED", "few_steps", "in_latents", "nearest", "process_of", "started", "steps_run"]

_OWN_RANGE, _FLOW, _SIGMAS, _EXPLODED = VarianceExploding(), RectifiedFlow(), VariancePreserving(), Exploded()

ADAPTERS: dict[str, tuple[ScheduleAdapter, ...]] = {
    "CogVideoXDDIMScheduler": (VPStrides(),),
    "CogVideoXDPMScheduler": (VPStrides(),),
    "DDIMScheduler": (VPStrides(),),
    "DDPMScheduler": (VPTimesteps(),),
    "DEISMultistepScheduler": (_FLOW, _SIGMAS),
    "DPMSolverMultistepScheduler": (_FLOW, _SIGMAS),
    "DPMSolverSDEScheduler": (Stochastic(),),
    "DPMSolverSinglestepScheduler": (Singlestep(),),
    "EDMEulerScheduler": (_OWN_RANGE,),
    "EulerAncestralDiscreteScheduler": (_EXPLODED,),
    "EulerDiscreteScheduler": (_OWN_RANGE, _EXPLODED),
    "FlowMapEulerDiscreteScheduler": (_FLOW,),
    "FlowMatchEulerDiscreteScheduler": (_OWN_RANGE, _FLOW),
    "FlowMatchHeunDiscreteScheduler": (_FLOW,),
    "HeunDiscreteScheduler": (_EXPLODED,),
    "LCMScheduler": (VPTimesteps(),),
    "LMSDiscreteScheduler": (_EXPLODED,),
    "LTXEulerAncestralRFScheduler": (_FLOW,),
    "PNDMScheduler": (PNDM(),),
    "UniPCMultistepScheduler": (_FLOW, _SIGMAS),
}
"""Scheduler class name (of the class or a base) -> its adapters; the first that fits the configuration is taken."""

REFUSED = {
    "HeliosScheduler": "it samples in stages of growing resolution, each with a range of sigmas of its own",
    "HeliosDMDScheduler": "it samples in stages of growing resolution, each with a range of sigmas of its own",
    "PiflowScheduler": "its policy is distilled for its own time segments and admits no other schedule",
}
"""Scheduler class name -> why it cannot start lower."""

_FEW = 8


def process_of(scheduler: Any) -> NoiseProcess:
    """The noise process that a scheduler samples; ValueError if its class is not known."""
    return _adapter(scheduler).process(scheduler)


def nearest(scheduler: Any, level: Level) -> Level:
    """The level nearest to `level` that `scheduler` can start from: VP models know whole timesteps only."""
    return _adapter(scheduler).nearest(scheduler, level)


def in_latents(scheduler: Any, level: Level) -> Level:
    """`level` of the process as the latents of a pipeline have it: Euler and Heun over betas keep x_t / alpha.

    An initial noise has to be drawn at this level.
    """
    return _adapter(scheduler).in_latents(level)


def started(scheduler: Any, level: Level, mode: Mode) -> Any:
    """A copy of `scheduler` whose schedules start exactly at `nearest(level)`; at the full level simply a copy.

    However its `set_timesteps` is called: what the pipeline gives it (a number of steps, sigmas, timesteps, mu) is the
    plain grid. ValueError if the scheduler, or this mode of it, cannot start lower.
    """
    adapter = _adapter(scheduler)
    scheduler = copy.deepcopy(scheduler)
    level = adapter.nearest(scheduler, level)
    if level != adapter.process(scheduler).noisiest:
        if reason := adapter.refusal(scheduler, mode):
            raise ValueError(f"{type(scheduler).__name__} cannot start lower with mode={mode!r}: {reason}.")
        adapter.start(scheduler, level, mode)
    return scheduler


def steps_run(scheduler: Any) -> int:
    """Steps of a schedule that has been set, each from one level to the next, whatever the order of the solver."""
    return len(_adapter(scheduler).nodes(scheduler))


def few_steps(scheduler: Any, mode: Mode) -> str | None:
    """What to warn of once a scheduler from `started` has been set: schedules of at most 8 steps suit distilled models.

    None if there are more steps or nothing was changed.
    """
    plain = getattr(scheduler, "unleak_plain_steps", None)
    if plain is None or plain > _FEW:
        return None
    run = steps_run(scheduler)
    if mode == "truncate":
        return (
            f"the schedule has {plain} steps, and truncated at the start {run} of them are run: with so few, whole"
            " steps are dropped. If the model is distilled for that schedule, expect less detail."
        )
    return (
        f"the schedule has {plain} steps, and rescaled to the start they leave the levels of the plain schedule: a"
        " model distilled for those has never seen the new ones. mode='truncate' stays on them, with fewer steps."
    )


def _adapter(scheduler: Any) -> ScheduleAdapter:
    own = getattr(scheduler, "unleak_adapter", None)  # a native scheduler brings its own
    if isinstance(own, ScheduleAdapter):
        return own
    names = [base.__name__ for base in type(scheduler).__mro__]
    for name in names:
        if name in REFUSED:
            raise ValueError(f"{name} cannot start lower: {REFUSED[name]}.")
        for adapter in ADAPTERS.get(name, ()):
            if adapter.fits(scheduler):
                return adapter
    raise ValueError(
        f"unleak does not know {names[0]}, so it cannot promise where sampling would start:"
        f" give the pipeline one of {', '.join(ADAPTERS)}."
    )
