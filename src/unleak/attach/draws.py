"""Change the first random draw of one function, for one caller: no module is patched, no other pipeline notices."""

import types
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

__all__ = ["Draw", "First", "with_globals"]

Draw = Callable[[Any, Tensor, Mapping[str, Any]], Tensor]
"""(pipeline, standard normal draw, arguments of the method that drew it) -> what the method uses instead."""


class First:
    """Call `function`, and apply `change` to the result of the first call."""

    def __init__(self, function: Callable[..., Tensor], change: Callable[[Tensor], Tensor]) -> None:
        self.function, self.change, self.drawn = function, change, False

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Draw."""
        result = self.function(*args, **kwargs)
        if self.drawn:
            return result
        self.drawn = True
        return self.change(result)


def with_globals(function: types.FunctionType, **replaced: Any) -> types.FunctionType:
    """Return a copy of `function` that sees other globals."""
    changed = types.FunctionType(
        function.__code__,
        {**function.__globals__, **replaced},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    changed.__kwdefaults__ = function.__kwdefaults__
    return changed
