"""What a study says while it works. The command line, the page and Python listen each in their own way."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

__all__ = ["ALONE", "Alone", "Listener", "Processes"]

Made = TypeVar("Made")


class Listener:
    """Hear nothing. Derive from it to show what a study says."""

    def note(self, text: str) -> None:
        """Hear something that is worth knowing."""

    def failure(self, text: str) -> None:
        """Hear that something failed while the study goes on; `text` names it and says why."""

    def progress(self, done: int, total: int, what: str) -> None:
        """Hear that `done` of `total` pieces of `what` (a plural noun) are done; 0 when the work begins."""


@runtime_checkable
class Processes(Protocol):
    """The processes that share a study, as `accelerate launch` starts them."""

    @property
    def rank(self) -> int:
        """Return the number of this process, from 0."""
        ...

    @property
    def count(self) -> int:
        """Return the number of processes."""
        ...

    @property
    def is_main(self) -> bool:
        """Return whether this process is the one that checks the input and has the result."""
        ...

    def device(self, device: str | None) -> Any:
        """Return the torch device of this process; `device` as the user named it, None for the accelerator."""
        ...

    def from_main(self, make: Callable[[], Made]) -> Made:
        """Return what `make` returns in the main process."""
        ...

    def gather(self, value: Made) -> list[Made]:
        """Return the values of all processes by rank in the main process, and an empty list in the others."""
        ...


class Alone:
    """One process without others."""

    rank, count, is_main = 0, 1, True

    def device(self, device: str | None) -> Any:
        """Return the torch device that `device` names; None for the accelerator."""
        from unleak.zoo.hub import pick_device

        return pick_device(device)

    def from_main(self, make: Callable[[], Made]) -> Made:
        """Return what `make` returns."""
        return make()

    def gather(self, value: Made) -> list[Made]:
        """Return the only value."""
        return [value]


ALONE = Alone()
