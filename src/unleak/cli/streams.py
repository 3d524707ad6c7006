"""Print words where names meet the terminal: printable, and without a traceback where nobody reads them."""

import os
import sys
import unicodedata
from typing import TextIO

__all__ = ["finish", "open_standard_streams", "printable", "say"]

# Control characters (ESC begins a terminal's commands), halves of characters, which stand for bytes that are no text in
# a file's name, and what breaks or reverses a line.
_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
_REVERSING = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """Escape what a terminal would obey rather than show, such as `\\x1b` in a file's name."""
    if text.isprintable():
        return text
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in _UNPRINTABLE or c in _REVERSING else c for c in text)


def say(text: str, stream: TextIO) -> None:
    """Print a line to stdout or stderr at once; if its reader has gone (`| head`), this and all later ones are lost.

    Letters that the stream's encoding lacks are escaped. Raises OSError for a full disk.
    """
    encoding = stream.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except BrokenPipeError:
        _discard(stream)


def open_standard_streams() -> None:
    """Open what the caller has closed (`>&-`) as the null device: the next file opened would take its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115


def finish() -> None:
    """Flush stdout and stderr, so that the interpreter does not fail to at its exit. Raises OSError for a full disk."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            _discard(stream)
            if not isinstance(error, BrokenPipeError):
                raise


def _discard(stream: TextIO) -> None:
    """Send what was and will be written to `stream` nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
