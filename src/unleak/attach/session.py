"""One call of an attached pipeline: another scheduler and another first draw of noise, for its duration only."""

import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from inspect import unwrap
from typing import Any

from einops import rearrange
from torch import Tensor

from unleak.attach.plan import Plan, UnleakWarning
from unleak.attach.schedule import process_of, started
from unleak.attach.seams import Seam, seam_of
from unleak.core.initial import InitialNoise, Standard
from unleak.core.process import Level

__all__ = ["session"]


@contextmanager
def session(pipe: Any, plan: Plan, arguments: Mapping[str, Any]) -> Iterator[None]:
    """Carry out `plan` on `pipe` while the body calls it with `arguments` (by name).

    Only attributes of this instance are replaced, and put back whatever happens; the scheduler itself is never touched,
    the session works on a copy.
    """
    seam, process = seam_of(pipe), process_of(pipe.scheduler)
    level, own = plan.level(process), [name for name in seam.own_schedule if arguments.get(name) is not None]
    replaced: dict[str, Any] = {}
    if own:
        level = process.level_at_sigma(float(arguments[own[0]][0]))
        if plan.start:
            warnings.warn(
                f"start {plan.start} is ignored: this call brings its own {own[0]}.", UnleakWarning, stacklevel=4
            )
    else:
        replaced["scheduler"] = started(pipe.scheduler, level, plan.mode)
        replaced["progress_bar"] = types.MethodType(_progress_bar, pipe)
    if not _is_pipelines_own(plan.init):
        if arguments.get("latents") is None:
            replaced["prepare_latents"] = _prepare_latents(pipe, seam, plan.init, level)
        else:
            ignored = f"init {plan.init!r} is ignored: this call brings its own latents."
            warnings.warn(ignored, UnleakWarning, stacklevel=4)

    before = {name: pipe.__dict__[name] for name in replaced if name in pipe.__dict__}
    pipe.__dict__.update(replaced)
    try:
        yield
    finally:
        for name in replaced:
            pipe.__dict__.pop(name, None)
        pipe.__dict__.update(before)


def _prepare_latents(pipe: Any, seam: Seam, init: InitialNoise, level: Level) -> types.MethodType:
    """The pipeline's own `prepare_latents`, its first draw eps turned into x_M / c.

    The pipeline then multiplies by c, packs, keeps clean frames, returns a tuple, as it always does. Latents given by
    the caller are not drawn, hence not touched.
    """
    plain = unwrap(pipe.prepare_latents.__func__)
    if "randn_tensor" not in plain.__code__.co_names:
        raise ValueError(
            f"{type(pipe).__name__}.prepare_latents does not draw its noise itself (no randn_tensor in it), so unleak"
            " cannot set the initial noise: use init='standard', or a pipeline class that does."
        )

    def initial(self: Any, eps: Tensor) -> Tensor:
        x = init.sample(rearrange(eps, f"{seam.layout} -> b c f h w"), level)
        return rearrange(x, f"b c f h w -> {seam.layout}") / seam.factor(self.scheduler)

    @wraps(plain)
    def prepare_latents(self: Any, *args: Any, **kwargs: Any) -> Any:
        draw = _first(plain.__globals__["randn_tensor"], lambda eps: initial(self, eps))
        return _with_globals(plain, randn_tensor=draw)(self, *args, **kwargs)

    return types.MethodType(prepare_latents, pipe)


def _progress_bar(self: Any, iterable: Any = None, total: int | None = None) -> Any:
    # Pipelines count the steps asked for; a truncated schedule has fewer.
    steps = None if total is None else -(-len(self.scheduler.timesteps) // self.scheduler.order)
    return type(self).progress_bar(self, iterable, steps)


def _first(function: Callable[..., Tensor], change: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """`function`, with `change` made to the result of its first call."""
    pending = [change]

    @wraps(function)
    def changed(*args: Any, **kwargs: Any) -> Tensor:
        result = function(*args, **kwargs)
        return pending.pop()(result) if pending else result

    return changed


def _with_globals(function: types.FunctionType, **replaced: Any) -> types.FunctionType:
    """A copy of `function` that sees other globals: no module is patched, no other pipeline notices."""
    changed = types.FunctionType(
        function.__code__,
        {**function.__globals__, **replaced},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    changed.__kwdefaults__ = function.__kwdefaults__
    return changed


def _is_pipelines_own(init: InitialNoise) -> bool:
    return isinstance(init, Standard) and init.factor is None
