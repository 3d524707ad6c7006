"""Open the files that people give, and only files: a pipe would wait for its writer, a device may never end."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

__all__ = ["VIDEO_SUFFIXES", "MediaError", "open_regular"]

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg"}
)

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


class MediaError(ValueError):
    """A photo, video or list that cannot be used; the message is one line: the file, the reason and what to do."""


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file to read its bytes.

    Raises MediaError, which says what `path` is, for a folder, pipe, device or socket, and OSError for a file that is
    not there or may not be read. It looks at the file that it has opened, so nobody can exchange it in between.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits until somebody writes to it.
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a device that is not there
            _check_regular(os.stat(path).st_mode, path)
        raise
    try:
        _check_regular(os.fstat(file).st_mode, path)
        return os.fdopen(file, "rb")
    except BaseException:
        os.close(file)
        raise


def _check_regular(mode: int, path: str | Path) -> None:
    if not stat.S_ISREG(mode):
        kind = next((kind for is_kind, kind in _KINDS if is_kind(mode)), "no regular file")
        raise MediaError(f"{path}: {kind}; give a regular file")
