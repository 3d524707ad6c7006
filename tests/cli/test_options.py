import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer

from unleak.cli.options import CommandLine, Group, argument, command, number, option, whole


@dataclass(frozen=True)
class Shape(Group):
    panel = "Basic"

    width: Annotated[int, option("N", "Width.", parse=whole(1, 100))] = 8
    names: Annotated[list[str] | None, option("NAME", "Names.", "--name")] = None
    loud: Annotated[bool, option("", "Loud.", "--loud")] = False


@pytest.fixture
def run():
    seen = {}

    @command
    def paint(
        photo: Annotated[str, argument("PHOTO", "A photo.")],
        shape: Shape,
        typed: CommandLine,
        gamma: Annotated[float | None, option("X", "Gamma.", parse=number(0, 9))] = None,
    ) -> None:
        seen.update(photo=photo, shape=shape, gamma=gamma, typed=typed)

    app = typer.Typer()
    app.command()(paint)

    def call(*words):
        app(list(words), standalone_mode=False)
        return seen

    return call


def test_a_group_becomes_options_and_comes_back_whole(run):
    seen = run("a.jpg", "--width", "5", "--name", "x", "--name", "y", "--loud", "--gamma", "2.50")
    assert (seen["photo"], seen["shape"], seen["gamma"]) == ("a.jpg", Shape(5, ["x", "y"], True), 2.5)
    assert run("a.jpg")["shape"] == Shape()


def test_what_was_typed_is_what_is_shown(run):
    typed = run("a b.jpg", "--gamma", "2.50", "--name", "x")["typed"]
    assert typed.text() == "unleak paint 'a b.jpg' --name x --gamma 2.50"
    assert typed.text(photo="c.jpg", width=3) == "unleak paint c.jpg --width 3 --name x --gamma 2.50"


@pytest.mark.parametrize("words", [["--width", "0"], ["--width", "1.5"], ["--gamma", "nan"], ["--gamma", "much"]])
def test_a_value_that_is_none_is_named_with_its_option(run, words):
    with pytest.raises(typer.BadParameter, match=f"{words[1]} is not a (whole )?number from"):
        run("a.jpg", *words)


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "none.jpg"],
        ["generate", "none.jpg", "--start", "0.94"],
        ["sweep", "none.jpg", "--fix", "sharpen=1"],
        ["tune", "none.jpg", "--target-motion", "8"],
        ["try", "none.jpg", "--budget", "0"],
    ],
)
def test_bad_arguments_are_told_before_torch_is_imported(words, tmp_path):
    code = f"import sys, unleak.cli as cli; s = cli.main({words!r}); sys.exit(9 if 'torch' in sys.modules else s)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr


@pytest.mark.slow
def test_bad_arguments_are_reported_before_anything_heavy_is_imported():
    """A limit in seconds would fail on a busy machine."""
    command = [sys.executable, "-X", "importtime", "-m", "unleak", "generate", "none.jpg", "--start", "0.94"]
    done = subprocess.run(command, capture_output=True, text=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert done.returncode == 2
    assert "unleak.core.start" in imported
    assert not imported & {"torch", "diffusers", "transformers", "numpy", "PIL", "av", "huggingface_hub"}
