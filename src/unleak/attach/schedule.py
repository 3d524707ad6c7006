"""Make a scheduler start at a level: one adapter per kind of scheduler, always applied to a copy."""

import copy
from functools import wraps
from types import MethodType
from typing import Any

from unleak.attach.distilled import LTX2, grid_named
from unleak.attach.plan import Mode
from unleak.attach.schedulers.adapter import Limits, ScheduleAdapter
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
from unleak.core.grid import FEW_STEPS
from unleak.core.process import Level, NoiseProcess

__all__ = [
    "ADAPTERS",
    "REFUSED",
    "count_steps",
    "few_steps",
    "in_latents",
    "keeps_its_levels",
    "level_of_step",
    "nearest",
    "process_of",
    "started",
    "started_later",
    "steps_counted",
    "steps_run",
]

_LTX2_ADVICE = (
    " A start fits LTX-2 distilled badly, since five of its eight levels lie at sigma 0.975 or above: use Compress or"
    " ReferenceBias there."
)
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


def process_of(scheduler: Any) -> NoiseProcess:
    """Return the noise process that a scheduler samples; ValueError if its class is not known."""
    return _adapter(scheduler).process(scheduler)


def nearest(scheduler: Any, level: Level) -> Level:
    """Return the level nearest to `level` that `scheduler` can start from: VP models know whole timesteps only."""
    return _adapter(scheduler).nearest(scheduler, level)


def in_latents(scheduler: Any, level: Level) -> Level:
    """Return `level` of the process as the latents of a pipeline have it: Euler and Heun over betas keep x_t / alpha.

    An initial noise has to be drawn at this level.
    """
    return _adapter(scheduler).in_latents(level)


def keeps_its_levels(scheduler: Any, steps: int, limits: Limits | None = None) -> bool:
    """Return whether a schedule of so many steps must keep to its own levels, as that of a distilled model must."""
    return _adapter(scheduler).few_steps(scheduler, steps, limits or Limits())


def started(scheduler: Any, level: Level, mode: Mode, limits: Limits | None = None) -> Any:
    """Return a copy of `scheduler` whose schedules start at `nearest(level)`; at the full level simply a copy.

    limits: with steps to leave out, schedules start at one of their own levels instead; so they do, below `level`,
        where the model is distilled or a rectified flow has few steps.

    However its `set_timesteps` is called: what the pipeline gives it (a number of steps, sigmas, timesteps, mu) is the
    plain grid. ValueError if the scheduler, or this mode of it, cannot start lower.
    """
    adapter = _adapter(scheduler)
    scheduler = copy.deepcopy(scheduler)
    level = adapter.nearest(scheduler, level)
    limits = limits or Limits()
    if level != adapter.process(scheduler).noisiest or limits.left_out:
        mode = _mode(mode, limits)
        if reason := adapter.refusal(scheduler, mode):
            raise ValueError(f"{type(scheduler).__name__} cannot start lower with mode={mode!r}: {reason}.")
        adapter.start(scheduler, level, mode, limits)
    return scheduler


def _mode(mode: Mode, limits: Limits) -> Mode:
    """Return the mode that is carried out; `auto` only where the number of steps decides, which is not known yet."""
    if limits.left_out:
        return "truncate"
    if mode == "auto" and (limits.distilled or limits.own_schedule):
        return "truncate"
    return mode


def steps_run(scheduler: Any) -> int:
    """Return the number of steps of a schedule that has been set, whatever the order of its solver."""
    return len(_adapter(scheduler).nodes(scheduler))


def started_later(scheduler: Any) -> bool:
    """Return whether a scheduler from `started` that has been set starts at another level than the one asked for."""
    return getattr(scheduler, "unleak_moved", None) is not None or getattr(scheduler, "unleak_left_out", 0) > 0


def level_of_step(scheduler: Any, step: int = 0) -> Level:
    """Return the level at which step `step` of a schedule that has been set begins."""
    adapter = _adapter(scheduler)
    return adapter.level_of(scheduler, adapter.nodes(scheduler)[[step]])


def count_steps(scheduler: Any) -> None:
    """Make this scheduler, a copy of one call's own, count how often `step` is called since its schedule was set."""
    set_timesteps, step = _function(scheduler, "set_timesteps"), _function(scheduler, "step")

    @wraps(set_timesteps)
    def counted_set_timesteps(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.unleak_calls = 0
        return set_timesteps(self, *args, **kwargs)

    @wraps(step)
    def counted_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = step(self, *args, **kwargs)
        self.unleak_calls += 1
        self.unleak_total += 1
        return result

    scheduler.unleak_calls = scheduler.unleak_total = 0
    scheduler.set_timesteps = MethodType(counted_set_timesteps, scheduler)
    scheduler.step = MethodType(counted_step, scheduler)


def steps_counted(scheduler: Any) -> tuple[int, int, int]:
    """Return (the step being made, from 0; the steps of the schedule; all calls of `step` so far) of a counting one.

    A schedule that is run through again without being set again, as FreeInit does, starts over at step 0.
    """
    adapter = _adapter(scheduler)
    step = adapter.step_of(scheduler, scheduler.unleak_calls % adapter.calls(scheduler))
    return step, len(adapter.nodes(scheduler)), scheduler.unleak_total


def _function(scheduler: Any, name: str) -> Any:
    """Return the function behind a method; it takes the scheduler as its first argument, so that copies can be made."""
    method = getattr(scheduler, name)
    return getattr(method, "__func__", None) or (lambda _, *args, **kwargs: method(*args, **kwargs))


def few_steps(scheduler: Any, mode: Mode) -> str | None:
    """Return what to say of a schedule of few steps, once a scheduler from `started` has been set; None if nothing."""
    plain = getattr(scheduler, "unleak_plain_steps", None)
    if above := getattr(scheduler, "unleak_above", None):
        return (
            f"sampling starts at sigma {above[0]:.4g}, as asked, which is noisier than where the plain schedule of"
            f" {plain} steps begins (sigma {above[1]:.4g}). Such a start brings no more motion: choose a lower start,"
            " or more steps."
        )
    moved = getattr(scheduler, "unleak_moved", None)
    left_out = getattr(scheduler, "unleak_left_out", 0)
    if plain is None or (moved is None and (left_out or plain > FEW_STEPS)):
        return None
    run = steps_run(scheduler)
    if moved is not None:
        first = f" (start='step:{plain - run}')" if run < plain else ""
        return (
            f"{run} of {plain} steps are run{first}. The start was asked for at sigma"
            f" {moved[0]:.4g} and moves to {moved[1]:.4g}, where the next step of the schedule begins:"
            f" {moved[2]}." + _LTX2_ADVICE * (grid_named(scheduler.unleak_grid) == LTX2)
        )
    if mode == "truncate":
        return (
            f"{run} of {plain} steps are run. With mode='truncate' a lower start leaves out the steps above it, and few"
            " steps are left here: expect less detail. More steps help, unless the model is made for few."
        )
    return (
        f"all {plain} steps are run, at new noise levels from the start down. If the model is made for few steps"
        " (distilled), it has never seen these levels: use mode='truncate', which keeps to the model's own."
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
