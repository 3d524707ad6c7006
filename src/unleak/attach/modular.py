"""Modular pipelines (diffusers `ModularPipeline`): their arguments, and a copy of their blocks for one call.

A modular pipeline has the parts of an ordinary one as attributes, but its call and its draw of noise are in blocks. So
a session gives it, besides another scheduler, a copy of its blocks in which the block that draws the initial noise
draws another one. The pipeline's own blocks are never touched.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from inspect import signature, unwrap
from types import MethodType
from typing import Any

from unleak.attach.draws import Draw, First, with_globals

__all__ = ["argument_names", "blocks_for_a_call", "default_of", "given_arguments", "is_modular"]


def is_modular(pipeline: Any) -> bool:
    """Return whether this is a modular pipeline, or a class of them."""
    cls = pipeline if isinstance(pipeline, type) else type(pipeline)
    return any(base.__name__ == "ModularPipeline" for base in cls.__mro__)


def argument_names(pipeline: Any) -> set[str]:
    """Return the names of the arguments that the call of a pipeline, or of a class of them, takes."""
    if not is_modular(pipeline):
        return set(signature((pipeline if isinstance(pipeline, type) else type(pipeline)).__call__).parameters)
    return {one.name for one in _blocks(pipeline).inputs if one.name}


def given_arguments(pipe: Any, call: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a modular pipeline's call by name: defaults, then those of `state`, then keywords.

    call: the bound arguments of its `__call__`, that is `state`, `output` and `kwargs`.
    """
    found = {one.name: one.default for one in pipe._blocks.inputs if one.name}
    if (state := call.get("state")) is not None:
        found |= state.values
    return found | call.get("kwargs", {})


def default_of(pipe: Any, argument: str) -> Any:
    """Return the default of an argument of the call of `pipe`."""
    if is_modular(pipe):
        return next((one.default for one in pipe._blocks.inputs if one.name == argument), None)
    return signature(type(pipe).__call__).parameters[argument].default


def blocks_for_a_call(pipe: Any, draws: Mapping[str, Draw], progress_bar: Callable[..., Any] | None) -> Any:
    """Return a copy of the blocks of `pipe` for one call.

    draws: block class -> what becomes of the first noise that such a block draws. progress_bar: replaces that of every
    denoising loop. ValueError if the pipeline has no block of a class, or the block draws no noise itself.
    """
    blocks = copy.deepcopy(pipe._blocks)
    names = set[str]()
    for block in _each(blocks):
        if progress_bar is not None and hasattr(block, "loop_step"):
            block.progress_bar = MethodType(progress_bar, block)
        for cls in type(block).__mro__:
            if cls.__name__ in draws:
                _change(block, pipe, draws[cls.__name__])
                names.add(cls.__name__)
                break
    if missing := draws.keys() - names:
        raise ValueError(
            f"this {type(pipe).__name__} has no {' and no '.join(sorted(missing))} among its blocks, so unleak cannot"
            " set the initial noise: use init='standard'."
        )
    return blocks


def _blocks(pipeline: Any) -> Any:
    """Return the blocks of a modular pipeline, or the default ones of a class."""
    if not isinstance(pipeline, type):
        return pipeline._blocks
    kind: Any = pipeline
    library = import_module(kind.__module__.partition(".")[0])
    return getattr(library, kind.default_blocks_name)()


def _each(block: Any) -> Iterator[Any]:
    """Yield a block and all blocks in it."""
    yield block
    for one in block.sub_blocks.values():
        yield from _each(one)


def _change(block: Any, pipe: Any, draw: Draw) -> None:
    """Let this block, a copy, use what `draw` makes of its first draw."""
    cls = type(block)
    name = "prepare_latents" if hasattr(cls, "prepare_latents") else "__call__"
    plain = unwrap(getattr(cls, name))
    if "randn_tensor" not in plain.__code__.co_names:
        raise ValueError(
            f"{cls.__name__} of this {type(pipe).__name__} does not draw its noise itself, so unleak cannot set the"
            " initial noise: use init='standard'."
        )

    def drawing(*args: Any, **kwargs: Any) -> Any:
        first = First(plain.__globals__["randn_tensor"], lambda eps: draw(pipe, eps, {}))
        return with_globals(plain, randn_tensor=first)(*args, **kwargs)

    static = isinstance(vars(next(base for base in cls.__mro__ if name in vars(base)))[name], staticmethod)
    block.__class__ = type(cls.__name__, (cls,), {name: staticmethod(drawing) if static else drawing})
