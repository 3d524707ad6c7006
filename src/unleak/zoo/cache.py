"""Keep on this machine, beside the Hub's own cache, what unleak converted, unpacked and checked."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

from unleak.data.reading import read_json

__all__ = ["Leftover", "cache_folder", "check_space", "leftovers", "lock_of", "made_once", "read_note", "write_note"]


def cache_folder() -> Path:
    """Return `UNLEAK_CACHE`, else `unleak` in the user's cache folder (`XDG_CACHE_HOME`, or what the system uses)."""
    if given := os.environ.get("UNLEAK_CACHE"):
        return Path(given).expanduser()
    return platformdirs.user_cache_path("unleak", appauthor=False, opinion=False)


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return `folder`, filled by `make` if it is not there: whole or not at all, once among all processes that ask.

    The others wait; a process that dies leaves a lock that is free and a temporary folder that `leftovers` names.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock_of(folder)):
        if not folder.is_dir():
            temporary = Path(mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
            try:
                make(temporary)
                temporary.chmod(0o755)
                temporary.replace(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return folder


def lock_of(path: Path) -> Path:
    """Return the file whose lock is held while something is made at `path`."""
    return path.with_name(f"{path.name}.lock")


@contextmanager
def _free(folder: Path) -> Iterator[bool]:
    """Give whether nobody is making `folder`; if so, nobody starts to before the block ends."""
    lock = FileLock(lock_of(folder))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def read_note(*names: str) -> dict[str, Any]:
    """Read a small JSON object kept by name; empty if there is none, or none that can be read."""
    try:
        return read_json(_note(*names), dict)
    except (OSError, ValueError):
        return {}


def write_note(values: dict[str, Any], *names: str) -> None:
    """Keep a small JSON object by name, whole or not at all."""
    path = _note(*names)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(values, indent=1), encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _note(*names: str) -> Path:
    return cache_folder() / "notes" / ("--".join(name.replace("/", "--") for name in names) + ".json")


def check_space(folder: Path, needed: int, what: str) -> None:
    """Raise ValueError if `needed` bytes, and a little for others, would not fit where `folder` is to be."""
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if needed + 100_000_000 > free and needed:
        raise ValueError(
            f"{what} needs {needed / 1e9:.3g} GB in {folder}, where {free / 1e9:.3g} GB are free; free some space, or "
            "set HF_HOME and UNLEAK_CACHE to folders on a larger disk"
        )


class Leftover:
    """Something in the cache that can go: where, how large, and why."""

    def __init__(self, path: Path, why: str) -> None:
        self.path, self.why = path, why
        files = [path] if path.is_file() else path.rglob("*")
        self.size = sum(file.stat().st_size for file in files if file.is_file())

    def remove(self) -> bool:
        """Remove it, unless a process is making it just now, and return whether it is gone."""
        target = self.path.with_name(self.path.name.partition(".partial-")[0])
        with _free(target) as free:
            if free:
                shutil.rmtree(self.path) if self.path.is_dir() else self.path.unlink()
        return free


def leftovers(current: set[Path], *, everything: bool = False) -> list[Leftover]:
    """List what can go: what was never finished, and folders that are not `current`; with `everything` those too."""
    found = []
    for kind in ("converted", "unpacked"):
        for path in sorted((cache_folder() / kind).glob("*")):
            if path.is_dir() and ".partial-" in path.name:
                found.append(Leftover(path, "never finished"))
            elif path.is_dir() and path not in current:
                found.append(Leftover(path, "no model has use for it"))
            elif path.is_dir() and everything:
                found.append(Leftover(path, "made again when needed"))
    stopped = sorted(path for path in (cache_folder() / "partial").glob("*") if path.suffix != ".lock")
    return found + [Leftover(path, "a download that stopped") for path in stopped]
