"""Files that are there whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from unleak.core.temporary import temporary_beside


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to; it becomes `path` at the end of the block.

    Its folder is made if need be. If the block raises (a full disk, Ctrl-C) the temporary file is removed, what stood
    at `path` is untouched, and an OSError is about `path`, not about the temporary name. What a killed process left is
    removed by the next that writes there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        yield temporary
        _open_to_others(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def folder_written_whole(path: str | Path) -> Iterator[Path]:
    """Give a folder to fill that becomes `path`. What stood there is replaced, so look first at what that is."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, aside = temporary_beside(path), path.parent / f".{sha256(os.fsencode(path.name)).hexdigest()[:16]}.old"
    if aside.exists() and not path.exists():  # killed between two renames
        aside.rename(path)
    shutil.rmtree(aside, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            _open_to_others(file)
        if path.exists():  # a folder cannot be renamed over a full one: the old one steps aside
            path.rename(aside)
        temporary.rename(path)
    except BaseException:
        if aside.exists() and not path.exists():
            aside.rename(path)
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _open_to_others(path: Path) -> None:
    """Give a file that a library made for its owner alone (safetensors 0.8 does) the mode that the umask allows."""
    if os.name == "posix" and path.is_file() and path.stat().st_mode & 0o777 == 0o600:
        path.chmod(0o666 & ~_umask())


@lru_cache
def _umask() -> int:
    umask = os.umask(0o077)  # it can be read by setting it only
    os.umask(umask)
    return umask


def check_writable(folder: Path) -> None:
    """Raise ValueError if files cannot be written to `folder`, whether it exists or not.

    It is better to know before an hour of work than after it. Nothing is made that stays.
    """
    try:
        for place in (folder, *folder.parents):
            try:
                os.lstat(place)
            except (FileNotFoundError, NotADirectoryError):
                continue
            tempfile.TemporaryFile(dir=place).close()
            return
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written to ({error.strerror}); choose another folder") from error
