"""What a pipeline computes of its photo and prompt, computed once for several calls."""

import copy
import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from unleak.attach.stand_in import standing_in

__all__ = ["encoded_once"]

_KEPT = 8  # answers of each encoder: a prompt, a negative one, a photo, with some to spare


@contextmanager
def encoded_once(pipe: Any) -> Iterator[None]:
    """Let the encoders of `pipe` answer from memory, in the body, what they were asked before, with the same bits.

    The encoders are the VAE's `encode` and the parts with `encoder` in their names. Stand-ins take their places in this
    pipeline, and the parts are back whatever happens. Random draws from what is encoded are made anew each time.
    """
    with ExitStack() as stack:
        components: dict[str, Any] = getattr(pipe, "components", {})
        for name, part in components.items():
            if not isinstance(part, nn.Module):
                continue
            encode: Any = getattr(part, "encode", None)
            if "encoder" in name:
                stack.enter_context(standing_in(pipe, name, {"__call__": _remembered(part)}))
            elif encode is not None:
                stack.enter_context(standing_in(pipe, name, {"encode": _remembered(encode)}))
        yield


def _remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    known: dict[Any, Any] = {}

    def answer(*args: Any, **kwargs: Any) -> Any:
        try:
            asked = _key((args, kwargs))
        except TypeError:  # for what cannot be compared, such as a cache of keys and values
            return function(*args, **kwargs)
        if asked not in known:
            if len(known) == _KEPT:
                del known[next(iter(known))]
            known[asked] = function(*args, **kwargs)
        return copy.deepcopy(known[asked])  # pipelines write into what they are given

    return answer


def _key(value: Any) -> Any:
    """Return what is equal for equal arguments; of a tensor a hash of its bytes. TypeError for other objects."""
    match value:
        case None | bool() | int() | float() | str() | torch.dtype():
            return type(value), value
        case list() | tuple():
            return type(value), *map(_key, value)
        case dict():
            return tuple((name, _key(one)) for name, one in sorted(value.items()))
        case torch.Tensor():
            data = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
            return value.dtype, tuple(value.shape), hashlib.blake2b(data.data).digest()
    raise TypeError(f"{type(value).__name__} cannot be compared")
