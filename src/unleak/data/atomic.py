"""Files that are there whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to; it becomes `path` at the end of the block.

    If the block raises (a full disk, Ctrl-C) the temporary file is removed and what stood at `path` is untouched.
    """
    path = Path(path)
    # Hidden, and of a length of its own: the name of the target may be as long as the file system allows.
    temporary = path.parent / f".{uuid4().hex}.part"
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def folder_written_whole(path: str | Path) -> Iterator[Path]:
    """The same with a folder to fill. What stood at `path` is replaced, so look first at what that is."""
    path = Path(path)
    temporary, aside = (path.parent / f".{uuid4().hex}.{name}" for name in ("part", "old"))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():  # a folder cannot be renamed over a full one: the old one steps aside
            path.rename(aside)
        temporary.rename(path)
    except BaseException:
        if aside.exists() and not path.exists():
            aside.rename(path)
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def check_writable(folder: Path) -> None:
    """Make `folder`, and a file in it for a moment: an OSError now is better than one after an hour of work."""
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
