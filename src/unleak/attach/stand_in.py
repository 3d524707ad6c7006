"""Change what a part of a pipeline answers, for this pipeline only: the part itself is never touched."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["StandIn", "standing_in"]


class StandIn:
    """Take the place of a pipeline's network, and pass everything on to that network but what `answers` names.

    answers: method name (`__call__` for the call itself) -> what is called instead, with the same arguments.

    Attributes are read from, written to and deleted from the network, `isinstance` sees the network's class, and copies
    and pickles are those of the network. Other pipelines that hold the same network never meet the stand-in.
    """

    def __init__(self, network: Any, answers: Mapping[str, Callable[..., Any]]) -> None:
        object.__setattr__(self, "_unleak_network", network)
        object.__setattr__(self, "_unleak_answers", dict(answers))

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return self._unleak_network.__class__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Answer a call."""
        return self._unleak_answers.get("__call__", self._unleak_network)(*args, **kwargs)

    def __getattribute__(self, name: str) -> Any:
        own = object.__getattribute__(self, "__dict__")
        if name in own or (name.startswith("__") and name != "__dict__"):
            return object.__getattribute__(self, name)
        answers = own["_unleak_answers"]
        return answers[name] if name in answers else getattr(own["_unleak_network"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._unleak_network, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._unleak_network, name)

    def __dir__(self) -> Any:
        return dir(self._unleak_network)

    def __repr__(self) -> str:
        return repr(self._unleak_network)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self._unleak_network, memo)

    def __copy__(self) -> Any:
        return copy.copy(self._unleak_network)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._unleak_network.__reduce_ex__(protocol)


@contextmanager
def standing_in(pipe: Any, name: str, answers: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Let a `StandIn` answer for the part `name` of `pipe` in the body; the part is back whatever happens.

    While the pipeline frees its model hooks (`maybe_free_model_hooks`, at the end of a call) it holds the part itself,
    since new hooks are put on what it holds then.
    """
    part, freeing = pipe.__dict__[name], pipe.__dict__.get("maybe_free_model_hooks")
    free = getattr(pipe, "maybe_free_model_hooks", None)

    stand_in = StandIn(part, answers)

    def freed() -> Any:
        pipe.__dict__[name] = part
        try:
            return free() if free else None
        finally:
            pipe.__dict__[name] = stand_in

    pipe.__dict__[name] = stand_in
    pipe.__dict__["maybe_free_model_hooks"] = freed
    try:
        yield
    finally:
        pipe.__dict__[name] = part
        del pipe.__dict__["maybe_free_model_hooks"]
        if freeing is not None:
            pipe.__dict__["maybe_free_model_hooks"] = freeing
