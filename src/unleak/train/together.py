"""Processes that end together: what one of them cannot do none goes on without, and each says so in the same line."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch.distributed as dist
from filelock import FileLock, Timeout

from unleak.train.config import RecipeError

__all__ = ["alone_in", "lost", "together"]

_PATIENCE = 10.0  # seconds; the loader's workers outlive a killed run, whose lock they hold, by half of that


@contextmanager
def together() -> Iterator[None]:
    """Run the block in every process of the default group; if it raises in one (ValueError, OSError), it does in all.

    The block must not wait for other processes, unless what it waits with fails in all of them too.
    """
    mine: Exception | None = None
    try:
        yield
    except (ValueError, OSError) as error:
        mine = error
    errors = [mine]
    if dist.is_initialized():
        errors *= dist.get_world_size()
        dist.all_gather_object(errors, mine)
    if first := next((each for each in errors if each is not None), None):
        raise first


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Be the only run that writes to `folder`; RecipeError if another is. The lock of one that was killed is free."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / ".lock"
    lock = FileLock(file)
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        raise RecipeError(
            f"output: another run is writing to {folder}: wait until it ends, or choose another output"
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps a file that is open
            file.unlink()  # while it is held: who waits for it looks whether it still has its name
        if not any(folder.iterdir()):
            folder.rmdir()
        lock.release()


def lost(error: RuntimeError) -> bool:
    """Return whether an error only says that another process has ended."""
    return isinstance(error, dist.DistError) or bool(re.search(r"Connection (closed|reset) by peer", str(error)))
