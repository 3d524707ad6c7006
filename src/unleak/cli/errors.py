"""Turn what goes wrong into one red line and an exit status; no other file of the command line does that."""

import errno
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import typer

from unleak.cli.streams import finish, printable, say

# Their common base is in a private module, and not the same one in every version of typer.
_UsageError: Any = typer.BadParameter.__base__

WRONG_INPUT = 2
INTERRUPTED = 130
READER_GONE = 141


def run_reporting_errors(run: Callable[[], int | None]) -> int:
    """Call `run` and return an exit status: its own, 2 for bad input or a full disk, 130 for Ctrl-C, 141 for SIGPIPE.

    With UNLEAK_DEBUG=1 in the environment errors are raised instead, with their traceback.
    """
    status = _reported(run)
    try:
        finish()
    except OSError as error:
        print_error(describe_error(error))
        return WRONG_INPUT
    return status


def _reported(run: Callable[[], int | None]) -> int:
    try:
        return run() or 0
    except typer.Exit as exit_:
        return exit_.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a bare `unleak`: its help has been shown
            return WRONG_INPUT
        command = error.ctx.command_path if error.ctx else "unleak"
        print_error(f"{_in_full(error)} (see {command} --help)")
        return WRONG_INPUT
    except BrokenPipeError:  # whoever read what a library prints, such as a progress bar, reads no more
        return READER_GONE
    except (ValueError, OSError) as error:
        if os.environ.get("UNLEAK_DEBUG"):
            raise
        print_error(describe_error(error))
        return WRONG_INPUT


def _in_full(error: Any) -> str:
    """Return the message with the value that was given, which typer leaves out where it checks with pydantic."""
    text = error.format_message().replace("Value error, ", "").removesuffix(".")
    faults = getattr(error.__cause__, "errors", None)
    given = repr(faults()[0]["input"]) if faults else ""
    return text if given in text else f"{text}, given {given}"


def as_options(text: str) -> str:
    """Name arguments of `unleak.apply` as the options that they are here: `mode='truncate'` is `--mode truncate`."""
    return re.sub(r"\b(start|init|mode|motion)='([^' ]+)'", r"--\1 \2", text)


def describe_error(error: BaseException) -> str:
    """Describe an error to a person in one line: which file, what is wrong, what to do where that is known."""
    text = as_options(str(error))
    if isinstance(error, OSError):
        text = error.strerror or text
        if error.filename and str(error.filename) not in text:
            text = f"{os.fsdecode(error.filename)}: {text}"
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            text += "; free some space, or write to another disk"
    return text.strip() or type(error).__name__


def refuse_unmeasurable() -> None:
    """Raise ValueError, before the first video is made, if the packages that measure videos are not installed."""
    try:
        from unleak.study.sweep import check_measurable

        check_measurable()
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from error


def one_line(text: str) -> str:
    """Make a message one line for a terminal: printable, and what was given is cut where it is very long."""
    line = re.sub(r"\s*\n\s*", " ", text.strip())
    return printable(re.sub(r"\S{300,}", lambda match: f"{match[0][:120]}...{match[0][-60:]}", line))


def print_error(text: str) -> None:
    """Print one line on stderr, its first word red on a terminal."""
    head = "\x1b[31merror:\x1b[0m" if sys.stderr.isatty() and "NO_COLOR" not in os.environ else "error:"
    say(f"{head} {one_line(text)}", sys.stderr)
