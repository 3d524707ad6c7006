"""A loaded pipeline that is called without a size renders at its model's own, as the command line does."""

import copyreg
from collections.abc import Mapping
from functools import wraps
from inspect import signature
from typing import Any

__all__ = ["with_own_defaults"]


def with_own_defaults(pipe: Any, defaults: Mapping[str, Any]) -> Any:
    """Make `defaults` the default arguments of this instance's call; return the same `pipe`.

    Its class becomes a subclass of the same name; no other pipeline notices. Arguments that the call does not have are
    left out, and what a caller passes is what the pipeline gets, None included.
    """
    parameters = signature(type(pipe).__call__).parameters
    known = {name: value for name, value in defaults.items() if name in parameters}
    if any(parameters[name].default != value for name, value in known.items()):
        pipe.__class__ = _subclass(type(pipe), known)
    return pipe


class _Kind(type):
    """The class of such subclasses, which no module holds: pickle makes them again from the class below them."""


def _subclass(cls: type, defaults: dict[str, Any]) -> type:
    plain: Any = cls.__call__
    parameters = signature(plain)

    @wraps(plain)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        given = parameters.bind_partial(self, *args, **kwargs).arguments
        left_out = {name: value for name, value in defaults.items() if name not in given}
        return plain(self, *args, **kwargs, **left_out)

    named = [p.replace(default=defaults.get(name, p.default)) for name, p in parameters.parameters.items()]
    __call__.__signature__ = parameters.replace(parameters=named)  # type: ignore[attr-defined]
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return _Kind(cls.__name__, (cls,), {**names, "__call__": __call__, "_unleak_defaults": defaults})


def _made_again(cls: Any) -> Any:
    if "_unleak_defaults" in vars(cls):
        return _subclass, (cls.__base__, cls._unleak_defaults)
    return cls.__qualname__


copyreg.pickle(_Kind, _made_again)
