"""The `unleak` command: its sub-commands and what holds for all of them."""

import os
import signal
import sys
import warnings
from typing import Annotated, Any

import typer

from unleak import __version__
from unleak.cli.attempt import attempt
from unleak.cli.comfyui import comfyui
from unleak.cli.compare import compare
from unleak.cli.convert import convert
from unleak.cli.data import data
from unleak.cli.diagnose import diagnose
from unleak.cli.doctor import doctor
from unleak.cli.errors import run_reporting_errors
from unleak.cli.evaluate import evaluate
from unleak.cli.generate import generate
from unleak.cli.models import models
from unleak.cli.recipes import recipes
from unleak.cli.stats import stats
from unleak.cli.streams import open_standard_streams
from unleak.cli.sweep import sweep
from unleak.cli.train import train
from unleak.cli.tune import tune
from unleak.cli.ui import ui

app = typer.Typer(
    name="unleak",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (generate, sweep, tune, compare, diagnose, evaluate, stats, train, convert, doctor, ui):
    app.command()(command)
app.command("try")(attempt)
app.add_typer(models, name="models")
app.add_typer(recipes, name="recipes")
app.add_typer(data, name="data")
app.add_typer(comfyui, name="comfyui")


def _print_version(wanted: bool) -> bool:
    if wanted:
        print(f"unleak {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _unleak(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Make image-to-video diffusion models move: generate videos, compare starts, gather statistics, train."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line `arguments` (default: the program's own) and return its exit status."""
    # Read by the libraries when they are imported, which is after this. Threads that wait for each other sleep instead
    # of spinning: on a machine that does something else too, the nano model is then three to eight times faster.
    defaults = {f"{library}_VERBOSITY": "error" for library in ("TRANSFORMERS", "DIFFUSERS", "HF_HUB")}
    defaults["OMP_WAIT_POLICY"] = "PASSIVE"
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    open_standard_streams()
    if arguments is None:
        arguments = sys.argv[1:]
        # So that a killed run, too, removes its temporary files.
        signal.signal(signal.SIGTERM, _terminate)
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        return run_reporting_errors(lambda: app(arguments, prog_name="unleak", standalone_mode=False))


def _terminate(number: int, frame: Any) -> None:
    del frame
    sys.exit(128 + number)
