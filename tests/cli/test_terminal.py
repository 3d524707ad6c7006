"""Progress where stderr is no terminal."""

import re
import time

import rich.progress  # noqa: F401, takes its clock when it is imported, so before one is put in its place

from unleak.cli import terminal
from unleak.cli.errors import as_options, describe_error
from unleak.cli.terminal import Terminal


def steps(monkeypatch, capfd, *, quiet=False):
    clock = iter(range(0, 1000, 25))  # seconds
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    with Terminal(quiet).progress() as progress:
        task = progress.add_task("photo.jpg", total=8)
        for done in range(1, 9):
            progress.update(task, completed=done)
    monkeypatch.undo()
    return capfd.readouterr()


def test_a_log_gets_a_line_now_and_then(monkeypatch, capfd):
    out, err = steps(monkeypatch, capfd)
    lines = err.splitlines()
    assert out == ""
    assert 1 <= len(lines) < 8
    assert re.fullmatch(r"photo.jpg: \d of 8, about \d+ (s|min) left", lines[0])


def test_quiet_is_silent(monkeypatch, capfd):
    assert steps(monkeypatch, capfd, quiet=True) == ("", "")
    assert time.monotonic() > 0


def test_arguments_of_python_are_named_as_options():
    text = "use mode='truncate' or start='step:1', or motion='low'; init='standard' too"
    assert as_options(text) == "use --mode truncate or --start step:1, or --motion low; --init standard too"
    assert describe_error(ValueError("say start='0.94T'.")) == "say --start 0.94T."
    assert as_options("a file named 'mode'") == "a file named 'mode'"
