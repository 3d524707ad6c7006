"""Attach a start and an initial noise to a diffusers pipeline, and take them off again without a trace."""

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import wraps
from inspect import signature
from typing import Any, cast, get_args

from unleak.attach.distilled import distilled
from unleak.attach.latent_space import latent_channels, latent_space
from unleak.attach.modular import default_of, given_arguments, is_modular
from unleak.attach.motion import in_few_steps, joined, with_fixes_of
from unleak.attach.plan import Mode, Plan, Strategy, UnleakNote, UnleakWarning
from unleak.attach.schedule import level_of_step, nearest, process_of, started, started_later
from unleak.attach.schedulers.adapter import Limits
from unleak.attach.seams import seam_of
from unleak.attach.session import in_so_many_steps, session
from unleak.attach.turns import calling, waiting
from unleak.core.initial import AnalyticInit, InitialNoise, Standard, parse_init
from unleak.core.process import VP, NoiseProcess
from unleak.core.start import Start, describe

__all__ = ["Summary", "applied", "apply", "remove", "summary"]


class Recommended(Enum):
    """Stands for a start that nobody gave."""

    START = auto()


RECOMMENDED = Recommended.START


def apply(
    pipe: Any,
    *,
    start: Start | str | float | int | Recommended | None = RECOMMENDED,
    init: InitialNoise | str | None = None,
    mode: str | None = None,
    motion: str | None = None,
    strategies: Strategy | Sequence[Any] | None = None,
) -> Any:
    """Make `pipe` sample from `start` and `init`, with `strategies`; return the same `pipe`.

    With no argument but the pipeline, the fix that is recommended for its family is applied, and a warning of class
    `UnleakNote` says which. A second call replaces the first.

    start: where sampling starts: a Start or its text (`940`, `0.94T`, `sigma=100`, `logsnr=-5.3`, `step:1`); None:
        where the pipeline does.
    init: `standard` (the pipeline's own Gaussian at that level, the default), `unit`, or an InitialNoise such as
        AnalyticInit.
    mode: `rescale` spaces the N steps anew below the start; `truncate` leaves out the steps above it. `auto` (the
        default) rescales where it can, and truncates the schedules of distilled models, those of rectified flows with
        at most 8 steps, and those that the call brings itself: such a schedule keeps to its own levels, a warning says
        at which of them it starts, and `rescale` is refused for it.
    motion: `low`, `medium` or `high`, a preset of the pipeline's family in place of `start`. In few steps, which keep
        to their own levels, the preset is other fixes (`unleak.attach.motion`); a warning says which.
    strategies: other training-free fixes, one or several, alone or beside these: see `unleak.fixes()`.

    Raises ValueError, and leaves `pipe` as it was, for an unknown pipeline or scheduler, a start outside the noise
    process, moments of another model, and a strategy that this pipeline's structure does not allow. Nothing but this
    instance changes: its class becomes a subclass of the same name that opens a session around each call
    (`unleak.attach.session`). Calls of one pipeline take turns: a second thread waits.
    """
    if start is RECOMMENDED and all(given is None for given in (init, mode, motion, strategies)):
        motion, strategies = _recommended(pipe)
    start = None if isinstance(start, Recommended) else start
    chosen: Sequence[Any] = [strategies] if isinstance(strategies, Strategy) else strategies or ()
    plan = _plan(pipe, start, init or "standard", mode or "auto", motion, chosen)
    if motion is not None and plan.mode == "auto":
        plan = replace(plan, few=_in_few_steps(pipe, plan, motion, chosen))
    with waiting(pipe):
        remove(pipe)
        pipe.__class__ = _attached(type(pipe), plan)
    return pipe


@contextmanager
def applied(pipe: Any, **settings: Any) -> Iterator[Any]:
    """`apply` inside a `with` block; afterwards `pipe` is what it was before, applied or not."""
    before = type(pipe)
    try:
        yield apply(pipe, **settings)
    finally:
        pipe.__class__ = before


def remove(pipe: Any) -> Any:
    """Undo `apply`, if there is anything to undo, and return `pipe`, which is bit for bit the pipeline it was."""
    if (plan_class := _plan_class(pipe)) is None:
        return pipe
    if type(pipe) is not plan_class:
        raise ValueError(f"something else wrapped this {type(pipe).__name__} after unleak did: undo that first.")
    if plan_class.__call__ is not plan_class._unleak_call:
        warnings.warn(
            "another library patched this pipeline's class after unleak was applied; its patch goes too."
            " Apply unleak last, or apply that patch again.",
            UnleakWarning,
            stacklevel=2,
        )
    with waiting(pipe):
        pipe.__class__ = plan_class.__base__
    return pipe


@dataclass(frozen=True)
class Summary:
    """What a pipeline will do: `str()` for people, fields for programs."""

    pipeline: str
    applied: bool
    start: str | None
    mode: str
    init: str
    level: dict[str, Any]
    """The start in every unit (`unleak.core.start.describe`); for a schedule of few steps, the level that it keeps to,
    unless the size of the video decides on its levels."""
    before: tuple[float, ...] | None
    """Sigmas of the plain schedule, the final one included; None where the size of the video decides on them."""
    after: tuple[float, ...] | None
    """Sigmas of the schedule as it will be."""
    strategies: tuple[str, ...] = ()

    def __str__(self) -> str:
        def grid(sigmas: tuple[float, ...] | None) -> str:
            if sigmas is None:
                return "spaced by the size of the video (mu)"
            return f"{len(sigmas) - 1} steps, sigma {', '.join(f'{sigma:.4g}' for sigma in sigmas[:4])}, ..."

        head = f"{self.pipeline}, {'unleak applied' if self.applied else 'unleak not applied'}"
        start = self.start or "full"
        rows = {"start": f"{start}: {self.level['text']}", "init": self.init, "mode": self.mode}
        rows |= {"plain schedule": grid(self.before), "schedule": grid(self.after)}
        rows |= {"strategies": ", ".join(self.strategies)} if self.strategies else {}
        return "\n".join([head, *(f"  {name:<14} {text}" for name, text in rows.items())])


def summary(pipe: Any, *, num_inference_steps: int | None = None) -> Summary:
    """Return what `pipe` will do with `num_inference_steps` (None: its own default), applied or not."""
    seam = seam_of(pipe)
    plan_class = _plan_class(pipe)
    plan = plan_class._unleak_plan if plan_class else Plan(None, Standard(), "auto")
    steps = num_inference_steps or default_of(pipe, "num_inference_steps")
    process = process_of(pipe.scheduler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnleakWarning)  # the call says it
        plan, _ = in_so_many_steps(pipe, plan, {"num_inference_steps": steps})
    level = nearest(pipe.scheduler, plan.level(process))
    limits = Limits(plan.start.steps_left_out if plan.start else 0, distilled(pipe, {}))
    grids: list[tuple[float, ...] | None] = []
    for scheduler in (copy.deepcopy(pipe.scheduler), started(pipe.scheduler, level, plan.mode, limits)):
        if scheduler.config.get("use_dynamic_shifting"):
            grids.append(None)
        else:
            scheduler.set_timesteps(**seam.grid(steps))
            level = level_of_step(scheduler) if started_later(scheduler) else level
            grids.append(_sigmas(scheduler, process))
    return Summary(
        pipeline=type(pipe).__name__,
        applied=plan_class is not None,
        start=None if plan.start is None else str(plan.start),
        mode=plan.mode,
        init=repr(plan.init),
        level=describe(level, process),
        before=grids[0],
        after=grids[1],
        strategies=tuple(map(repr, plan.strategies)),
    )


def _sigmas(scheduler: Any, process: NoiseProcess) -> tuple[float, ...]:
    """Return the sigmas of the steps of a schedule that is set, and of its end."""
    if hasattr(scheduler, "sigmas"):
        return tuple(scheduler.sigmas.tolist())
    assert isinstance(process, VP)  # the others have sigmas
    return (*(process.level_at_timestep(t + 1).edm_sigma for t in scheduler.timesteps.tolist()), 0.0)


def _recommended(pipe: Any) -> tuple[str | None, tuple[Strategy, ...]]:
    """Return the motion and the strategies recommended for a pipeline, and say so in a warning.

    The family's `medium` start; for a model distilled to few steps, whose schedule is best left alone, a fix that
    does leave it alone.
    """
    seam, name = seam_of(pipe), type(pipe).__name__
    if (why := distilled(pipe, {})) and (found := in_few_steps(pipe, seam, "medium")) is not None:
        _note(f"unleak applies {found[1][0]!r} to this {name}, a model distilled to few steps ({why}).")
        return None, found[1]
    if "medium" not in seam.motion:
        raise ValueError(f"unleak recommends no start for {name}: say where to start, for example start='0.94T'.")
    _note(
        f"unleak applies motion='medium' to this {name}, a start at {seam.motion['medium']}: give start=, motion= or"
        " strategies= to choose yourself."
    )
    return "medium", ()


def _in_few_steps(pipe: Any, plan: Plan, motion: str, given: Sequence[Strategy]) -> Plan | None:
    """Return the plan of a preset for calls of few steps, beside the strategies that are given; None if none fits."""
    if (found := in_few_steps(pipe, seam_of(pipe), motion)) is None:
        return None
    return Plan(found[0], plan.init, "auto", joined(given, found[1]))


def _note(text: str) -> None:
    warnings.warn(text, UnleakNote, stacklevel=4)


def _plan(
    pipe: Any,
    start: Start | str | float | int | None,
    init: InitialNoise | str,
    mode: str,
    motion: str | None,
    strategies: Sequence[Any],
) -> Plan:
    """Return the plan that the arguments of `apply` ask for, checked against this pipeline as far as is known now."""
    seam = seam_of(pipe)
    if getattr(pipe, "scheduler", None) is None:
        raise ValueError(f"this {type(pipe).__name__} has no scheduler yet: load its components first.")
    if mode not in get_args(Mode):
        raise ValueError(f"mode {mode!r} is unknown: choose {', '.join(get_args(Mode))}.")
    if motion is not None:
        if start is not None:
            raise ValueError(f"motion={motion!r} chooses the start: give motion or start, not both.")
        if motion not in seam.motion:
            raise ValueError(
                f"motion {motion!r} is unknown for {type(pipe).__name__}: choose {', '.join(seam.motion) or 'a start'}."
            )
        start = seam.motion[motion]
    if not isinstance(start, Start | None):
        start = Start.parse(start)
    if given := [strategy for strategy in strategies if not isinstance(strategy, Strategy)]:
        raise ValueError(f"{given[0]!r} is no strategy: pass such as unleak.LowPass() or unleak.GuidanceInterval().")
    added = with_fixes_of(seam, motion, strategies)
    plan = Plan(start, parse_init(init), cast(Mode, mode), added)
    plan.level(process_of(pipe.scheduler))
    if seam.layout is None and not (isinstance(plan.init, Standard) and plan.init.factor is None):
        raise ValueError(
            f"{type(pipe).__name__} draws its noise inside its call, window by window, so unleak cannot set the initial"
            " noise: use init='standard'; a start works."
        )
    if isinstance(plan.init, AnalyticInit):
        _check_moments(pipe, plan.init)
    for strategy in plan.strategies:
        strategy.check(pipe, seam)
    return plan


def _check_moments(pipe: Any, init: AnalyticInit) -> None:
    init.fitted((latent_channels(pipe.vae), *init.moments.shape[1:]))
    ours, theirs = latent_space(pipe.vae), init.moments.meta.vae
    if theirs and not (ours.startswith(theirs) or theirs.startswith(ours)):  # a name may lack the hash of the weights
        raise ValueError(
            f"these moments belong to {init.moments.meta.model or 'another model'} (latents of {theirs}), but this"
            f" pipeline's latents are of {ours}: make moments of this model with `unleak stats`."
        )


def _attached(cls: type, plan: Plan) -> type:
    """Return a subclass of `cls`, of the same name, that carries `plan` and opens a session around each call."""
    plain: Any = cls.__call__
    parameters = signature(plain)

    @wraps(plain)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        bound = parameters.bind_partial(self, *args, **kwargs)
        bound.apply_defaults()
        given = given_arguments(self, bound.arguments) if is_modular(cls) else dict(bound.arguments)
        changed = dict(given)
        with calling(self), session(self, plan, changed):
            names = [name for name, value in changed.items() if value is not given[name]]
            if not names:
                return plain(self, *args, **kwargs)
            if is_modular(cls):
                return plain(self, *args, **kwargs | {name: changed[name] for name in names})
            bound = parameters.bind_partial(self, *args, **kwargs)
            bound.arguments.update({name: changed[name] for name in names})
            return plain(*bound.args, **bound.kwargs)

    def __reduce_ex__(self: Any, protocol: int) -> Any:  # noqa: N807  # no module holds this class, which pickle wants
        del protocol
        with waiting(self):  # a copy made while a call is running would be of that call's settings
            return _revived, (cls, plan), self.__getstate__().copy()

    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    methods = {"__call__": __call__, "_unleak_call": __call__, "__reduce_ex__": __reduce_ex__}
    return type(cls.__name__, (cls,), {**names, **methods, "_unleak_plan": plan})


def _revived(cls: type, plan: Plan) -> Any:
    """Return an empty instance of `_attached(cls, plan)`, for pickle and copy to fill."""
    attached: Any = _attached(cls, plan)
    return attached.__new__(attached)


def _plan_class(pipe: Any) -> Any:
    """Return the class that `apply` put on `pipe`; None without one."""
    return next((base for base in type(pipe).__mro__ if "_unleak_plan" in vars(base)), None)
