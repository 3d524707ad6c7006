"""The processes of one command, as `accelerate launch` and `torchrun` start them: who does what, and who speaks."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import typer

from unleak.cli.errors import WRONG_INPUT

__all__ = ["Processes", "launched"]

Made = TypeVar("Made")

_A_LONG_RUN = timedelta(days=30)  # one process may have finished its photos long before another


@dataclass(frozen=True)
class Processes:
    """This process among `count`. The main one, of rank 0, checks everything, and alone shows progress and results."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Return whether this process speaks."""
        return self.rank == 0

    def device(self, device: str | None) -> Any:
        """Return `device`; if none is named and the machine has several accelerators, the one of this process."""
        import torch

        from unleak.zoo.hub import pick_device

        picked = pick_device(device)
        if self.count == 1 or picked.type == "cpu" or ":" in str(picked):
            return picked
        return torch.device(picked.type, self.local_rank % torch.accelerator.device_count())

    def from_main(self, make: Callable[[], Made]) -> Made:
        """Return what `make` returns in the main process. Bad input is reported by that process alone, and ends all."""
        if self.count == 1:
            return make()
        import torch.distributed as dist

        box: list[Any] = [None]
        if self.is_main:
            try:
                box = [make()]
            finally:  # None: it raised
                dist.broadcast_object_list(box)
        else:
            dist.broadcast_object_list(box)
            if box[0] is None:
                self.outlive_main()
                raise typer.Exit(WRONG_INPUT)
        made: Made = box[0]
        return made

    def gather(self, value: Made) -> list[Made]:
        """Return the values of all processes by rank in the main process, and nothing in the others."""
        if self.count == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] | None = [None] * self.count if self.is_main else None
        dist.gather_object(value, values)
        return values or []

    def outlive_main(self) -> None:
        """Return when the main process has ended: a launcher kills the others as soon as one ends with an error."""
        if self.is_main:
            return
        import torch.distributed as dist

        try:
            dist.barrier()
        except RuntimeError:  # the connection is closed, which is how it is known
            return


def of_environment(name: str) -> int:
    """Return a number of processes that a launcher sets; 1 without a launcher. Raises ValueError if it is no number."""
    text = os.environ.get(name, "1")
    if not text.isdecimal() or not int(text):
        raise ValueError(f"{name}={text}: a launcher sets it to the number of processes; unset it")
    return int(text)


@contextmanager
def launched() -> Iterator[Processes]:
    """Give the processes that this one was started with: itself alone, unless a launcher started several."""
    count = of_environment("WORLD_SIZE")
    if count == 1:
        yield Processes()
        return
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=_A_LONG_RUN)
    try:
        yield Processes(dist.get_rank(), count, int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()
