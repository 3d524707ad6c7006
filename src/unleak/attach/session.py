"""One call of an attached pipeline: another scheduler and another first draw of noise, for its duration only."""

import copy
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import wraps
from inspect import signature, unwrap
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from unleak.attach.distilled import distilled
from unleak.attach.draws import Draw, First, with_globals
from unleak.attach.modular import blocks_for_a_call, is_modular
from unleak.attach.plan import Mode, Plan, UnleakWarning
from unleak.attach.schedule import (
    count_steps,
    few_steps,
    in_latents,
    keeps_its_levels,
    level_of_step,
    nearest,
    process_of,
    started,
    steps_run,
)
from unleak.attach.schedulers.adapter import Limits
from unleak.attach.seams import Seam, seam_of
from unleak.core.grid import FEW_STEPS
from unleak.core.initial import InitialNoise, Standard, Unit
from unleak.core.process import Level

__all__ = ["in_so_many_steps", "session"]


@contextmanager
def session(pipe: Any, plan: Plan, arguments: dict[str, Any]) -> Iterator[None]:
    """Carry out `plan` on `pipe` while the body calls it with `arguments` (by name, defaults included).

    Only attributes of this instance are replaced, and put back whatever happens; the scheduler itself is never touched,
    the session works on a copy.
    """
    seam, process = seam_of(pipe), process_of(pipe.scheduler)
    own = [name for name in seam.own_schedule if arguments.get(name) is not None]
    plan, few = in_so_many_steps(pipe, plan, arguments)
    level = nearest(pipe.scheduler, plan.level(process))
    kept = bool(own) and plan.mode == "auto"
    limits = Limits(plan.start.steps_left_out if plan.start else 0, distilled(pipe, arguments), kept)
    if own and plan.start and plan.mode == "rescale" and not limits.left_out:
        _warn(
            f"start {plan.start} is ignored: this call brings its own {own[0]}, which only mode='truncate' can keep to."
        )
        level = process.noisiest
    lower = bool(level != process.noisiest or limits.left_out)
    _refuse_what_cannot_be(pipe, seam, plan, arguments, lower=lower)
    if lower and seam.warn and (remark := seam.warn(pipe, level, process)):
        _warn(remark)
    begins: Level | None = level  # where sampling begins, None: where the schedule will say that it does
    if own or plan.start is None or limits.left_out or (lower and few and plan.mode != "rescale"):
        begins = None
        if seam.latents_first and not _is_pipelines_own(plan.init) and (own or plan.start):
            what = f"{own[0]} begin at" if own else "its schedule begins at"
            instead = f"leave {own[0]} away and give unleak the start, or " if own else ""
            raise ValueError(
                f"unleak cannot act on this call: {type(pipe).__name__} draws its noise before it knows the level that"
                f" {what}: {instead}use init='standard'."
            )
        if seam.latents_first:
            begins = process.noisiest

    replaced: dict[str, Any] = {}
    if lower or not own:
        replaced["scheduler"] = started(pipe.scheduler, level, plan.mode, limits)
    if plan.strategies:
        replaced.setdefault("scheduler", copy.deepcopy(pipe.scheduler))
        count_steps(replaced["scheduler"])
    draws: dict[str, Draw] = {}
    if not _is_pipelines_own(plan.init):
        if arguments.get("latents") is None:
            draws = {seam.draws: _video(seam, plan.init, begins, arguments)}
            draws |= dict.fromkeys(seam.others, _other(begins))
        else:
            _warn(f"init {plan.init!r} is ignored: this call brings its own latents.")
    bar = _progress_bar(pipe, plan.mode) if lower or not own else None
    if is_modular(pipe):
        if draws or bar:
            replaced["_blocks"] = blocks_for_a_call(pipe, draws, bar)
    else:
        if bar:
            replaced["progress_bar"] = types.MethodType(bar, pipe)
        finish = seam.finish if lower else None
        for name in {*draws, *((seam.draws,) if finish else ())}:
            replaced[name] = _replaced(pipe, name, draws.get(name), finish if name == seam.draws else None)

    before = {name: pipe.__dict__[name] for name in replaced if name in pipe.__dict__}
    pipe.__dict__.update(replaced)
    try:
        with ExitStack() as stack:
            for strategy in plan.strategies:
                stack.enter_context(strategy.attached(pipe, seam, arguments))
            yield
    finally:
        for name in replaced:
            pipe.__dict__.pop(name, None)
        pipe.__dict__.update(before)


def _refuse_what_cannot_be(pipe: Any, seam: Seam, plan: Plan, arguments: Mapping[str, Any], *, lower: bool) -> None:
    """Raise ValueError for a call that the start, the initial noise or the strategies cannot act on."""
    if (lower or not _is_pipelines_own(plan.init)) and seam.refuse and (reason := seam.refuse(pipe, arguments)):
        raise ValueError(f"unleak cannot act on this call: {reason}.")
    if plan.strategies and seam.unusual and (reason := seam.unusual(arguments)):
        raise ValueError(f"strategies cannot act on this call: {reason}.")


def in_so_many_steps(pipe: Any, plan: Plan, arguments: Mapping[str, Any]) -> tuple[Plan, bool]:
    """Return the plan for a call with `arguments`, and whether its schedule must keep to its own levels."""
    own = [arguments[name] for name in seam_of(pipe).own_schedule if arguments.get(name) is not None]
    steps = len(own[0]) if own else arguments.get("num_inference_steps")
    limits = Limits(distilled=distilled(pipe, arguments))
    few = keeps_its_levels(pipe.scheduler, steps if isinstance(steps, int) else FEW_STEPS + 1, limits)
    if not few or plan.few is None:
        return plan, few
    instead = [*map(repr, plan.few.strategies), *([f"start {plan.few.start}"] if plan.few.start else [])]
    _warn(
        f"in place of a start at {plan.start} unleak applies {' and '.join(instead)}. The steps are few, and a model"
        " made for few steps knows no noise levels but its own, which a start would change."
    )
    return plan.few, few


def _video(seam: Seam, init: InitialNoise, begins: Level | None, call: Mapping[str, Any]) -> Draw:
    """Return eps -> x_M / c. The pipeline multiplies by c, adds what it adds, packs, and keeps clean frames."""

    def draw(pipe: Any, eps: Tensor, arguments: Mapping[str, Any]) -> Tensor:
        lead = seam.lead(pipe, call) if seam.lead else 0
        level = in_latents(pipe.scheduler, begins or level_of_step(pipe.scheduler))
        factor = seam.factor(pipe.scheduler)
        if seam.layout == "tokens":
            return _in_tokens(pipe, eps, arguments, lambda video: _sample(init, video, level, lead) / factor)
        x = _sample(init, rearrange(eps, f"{seam.layout} -> b c f h w"), level, lead)
        x = rearrange(x, f"b c f h w -> {seam.layout}")
        return (x if seam.added is None else x - seam.added(pipe, arguments)) / factor

    return draw


def _sample(init: InitialNoise, eps: Float[Tensor, "b c f h w"], level: Level, lead: int) -> Float[Tensor, "b c f h w"]:
    """Return x_M; each of the `lead` frames in front is drawn as if it were the video's first."""
    video = eps[:, :, lead:]
    fronts = [torch.cat([eps[:, :, i : i + 1], video[:, :, 1:]], 2) for i in range(lead)]
    return torch.cat([*(init.sample(front, level)[:, :, :1] for front in fronts), init.sample(video, level)], 2)


def _in_tokens(
    pipe: Any, eps: Float[Tensor, "b n d"], arguments: Mapping[str, Any], change: Callable[[Tensor], Tensor]
) -> Float[Tensor, "b n d"]:
    """Apply `change` to the video among packed tokens; those after it are conditions, which keep their noise."""
    grid = (
        (arguments["num_frames"] - 1) // pipe.vae_temporal_compression_ratio + 1,
        arguments["height"] // pipe.vae_spatial_compression_ratio,
        arguments["width"] // pipe.vae_spatial_compression_ratio,
    )
    patch = (pipe.transformer_spatial_patch_size, pipe.transformer_temporal_patch_size)
    count = grid[0] * grid[1] * grid[2] // (patch[0] ** 2 * patch[1])
    video = pipe._unpack_latents(eps[:, :count], *grid, *patch)
    return torch.cat([pipe._pack_latents(change(video), *patch), eps[:, count:]], 1)


def _other(begins: Level | None) -> Draw:
    """Start another modality on the same schedule from the Gaussian of unit-variance data at the same level."""

    def draw(pipe: Any, eps: Tensor, arguments: Mapping[str, Any]) -> Tensor:
        del arguments
        return eps * Unit().variance(begins or level_of_step(pipe.scheduler)) ** 0.5

    return draw


def _replaced(pipe: Any, name: str, draw: Draw | None, finish: Callable[[Any], Any] | None) -> types.MethodType:
    """Return the pipeline's own method `name`, its first draw changed by `draw` and its result by `finish`.

    Latents given to it are not drawn, hence not changed.
    """
    plain = unwrap(getattr(pipe, name).__func__)
    if draw is not None and "randn_tensor" not in plain.__code__.co_names:
        raise ValueError(
            f"{type(pipe).__name__}.{name} does not draw its noise itself (no randn_tensor in it), so unleak"
            " cannot set the initial noise: use init='standard', or a pipeline class that does."
        )
    parameters = signature(plain)

    @wraps(plain)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        bound = parameters.bind(self, *args, **kwargs)
        bound.apply_defaults()
        given = [bound.arguments.get(name) for name in ("latents", "audio_latents")]
        if draw is None or any(latents is not None for latents in given):
            result = plain(self, *args, **kwargs)
        else:
            first = First(plain.__globals__["randn_tensor"], lambda eps: draw(self, eps, bound.arguments))
            result = with_globals(plain, randn_tensor=first)(self, *args, **kwargs)
            if not first.drawn:
                raise ValueError(
                    f"{type(self).__name__}.{name} drew no noise of its own in this call (FreeNoise, for one, does it"
                    " elsewhere), so unleak cannot set the initial noise: turn that off, or use init='standard'."
                )
        return finish(result) if finish else result

    return types.MethodType(method, pipe)


def _progress_bar(pipe: Any, mode: Mode) -> Callable[..., Any]:
    """Return a bar for a pipeline, or for the loop of a modular one, that counts the steps that run.

    It is opened once the schedule is set.
    """

    def progress_bar(self: Any, iterable: Any = None, total: int | None = None) -> Any:
        if remark := few_steps(pipe.scheduler, mode):
            _warn(remark)
        return type(self).progress_bar(self, iterable, None if total is None else steps_run(pipe.scheduler))

    return progress_bar


def _is_pipelines_own(init: InitialNoise) -> bool:
    return isinstance(init, Standard) and init.factor is None


def _warn(text: str) -> None:
    """Warn at the line that called the pipeline: the first outside of the libraries that pass the call on."""
    frame, depth = sys._getframe(1), 2
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] in _PASSING_ON:
        frame, depth = frame.f_back, depth + 1
    warnings.warn(text, UnleakWarning, stacklevel=depth)


_PASSING_ON = ("unleak", "contextlib", "torch", "diffusers")
