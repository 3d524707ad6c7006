"""Attach a start and an initial noise to a diffusers pipeline, and take them off again without a trace."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import Any, cast, get_args

from unleak.attach.latent_space import latent_space
from unleak.attach.plan import Mode, Plan, UnleakWarning
from unleak.attach.schedule import process_of, started
from unleak.attach.seams import seam_of
from unleak.attach.session import session
from unleak.core.initial import AnalyticInit, InitialNoise, Standard, parse_init
from unleak.core.start import Start, describe

__all__ = ["Summary", "applied", "apply", "remove", "summary"]


def apply(
    pipe: Any,
    *,
    start: Start | str | float | int | None = None,
    init: InitialNoise | str = "standard",
    mode: str = "rescale",
    motion: str | None = None,
) -> Any:
    """Make `pipe` sample from `start` and `init`; returns the same `pipe`. A second call replaces the first.

    start: where sampling starts: a Start or its text (`940`, `0.94T`, `sigma=100`, `logsnr=-5.3`); None: unchanged.
    init: `standard` (the pipeline's own Gaussian at that level), `unit`, or an InitialNoise such as AnalyticInit.
    mode: `rescale` spaces the N steps anew below the start; `truncate` drops the steps above it.
    motion: `low`, `medium` or `high`, a preset of the pipeline's family in place of `start`.

    Raises ValueError, and leaves `pipe` as it was, for an unknown pipeline or scheduler, a start outside the noise
    process, and moments of another model. Nothing but this instance changes: its class becomes a subclass of the same
    name that opens a session around each call (`unleak.attach.session`).
    """
    plan = _plan(pipe, start, init, mode, motion)
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
    """Undo `apply`; returns the same `pipe`, which is bit for bit the pipeline it was. Nothing to undo: no effect."""
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
    """The start in every unit (`unleak.core.start.describe`)."""
    before: tuple[float, ...]
    """Sigmas of the plain schedule, the final zero included."""
    after: tuple[float, ...]
    """Sigmas of the schedule as it will be."""

    def __str__(self) -> str:
        def grid(sigmas: tuple[float, ...]) -> str:
            return f"{len(sigmas) - 1} steps, sigma {', '.join(f'{sigma:.4g}' for sigma in sigmas[:4])}, ..."

        head = f"{self.pipeline}, {'unleak applied' if self.applied else 'unleak not applied'}"
        start = self.start or "full"
        rows = {"start": f"{start}: {self.level['text']}", "init": self.init, "mode": self.mode}
        rows |= {"plain schedule": grid(self.before), "schedule": grid(self.after)}
        return "\n".join([head, *(f"  {name:<14} {text}" for name, text in rows.items())])


def summary(pipe: Any, *, num_inference_steps: int | None = None) -> Summary:
    """What `pipe` will do with `num_inference_steps` (None: its own default), applied or not."""
    seam_of(pipe)  # raises for what is no pipeline known here
    plan_class = _plan_class(pipe)
    plan = plan_class._unleak_plan if plan_class else Plan(None, Standard(), "rescale")
    steps = num_inference_steps or signature(type(pipe).__call__).parameters["num_inference_steps"].default
    process = process_of(pipe.scheduler)
    level = plan.level(process)
    plain, changed = copy.deepcopy(pipe.scheduler), started(pipe.scheduler, level, plan.mode)
    for scheduler in (plain, changed):
        scheduler.set_timesteps(steps)
    return Summary(
        pipeline=type(pipe).__name__,
        applied=plan_class is not None,
        start=None if plan.start is None else str(plan.start),
        mode=plan.mode,
        init=repr(plan.init),
        level=describe(level, process),
        before=tuple(plain.sigmas.tolist()),
        after=tuple(changed.sigmas.tolist()),
    )


def _plan(
    pipe: Any, start: Start | str | float | int | None, init: InitialNoise | str, mode: str, motion: str | None
) -> Plan:
    """The plan that the arguments of `apply` ask for, checked against this pipeline as far as can be known now."""
    seam = seam_of(pipe)
    if mode not in get_args(Mode):
        raise ValueError(f"mode {mode!r} is unknown: choose {' or '.join(get_args(Mode))}.")
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
    plan = Plan(start, parse_init(init), cast(Mode, mode))
    plan.level(process_of(pipe.scheduler))
    if isinstance(plan.init, AnalyticInit):
        _check_moments(pipe, plan.init)
    return plan


def _check_moments(pipe: Any, init: AnalyticInit) -> None:
    init.fitted((pipe.vae.config.latent_channels, *init.moments.shape[1:]))
    ours, theirs = latent_space(pipe.vae), init.moments.meta.vae
    if theirs and not (ours.startswith(theirs) or theirs.startswith(ours)):  # a name may lack the hash of the weights
        raise ValueError(
            f"these moments belong to {init.moments.meta.model or 'another model'} (latents of {theirs}), but this"
            f" pipeline's latents are of {ours}: make moments of this model with `unleak stats`."
        )


def _attached(cls: type, plan: Plan) -> type:
    """A subclass of `cls`, same name, that carries `plan` and opens a session around each call."""
    plain: Any = cls.__call__

    @wraps(plain)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        with session(self, plan, signature(plain).bind_partial(self, *args, **kwargs).arguments):
            return plain(self, *args, **kwargs)

    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls,), {**names, "__call__": __call__, "_unleak_call": __call__, "_unleak_plan": plan})


def _plan_class(pipe: Any) -> Any:
    """The class that `apply` put on `pipe`, None without one."""
    return next((base for base in type(pipe).__mro__ if "_unleak_plan" in vars(base)), None)
