"""`unleak train`: run a recipe."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from unleak.cli.errors import WRONG_INPUT, print_error
from unleak.cli.options import JsonOption, QuietOption
from unleak.cli.terminal import Terminal


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A YAML file, or a name that `unleak recipes` lists.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the recipe; repeatable.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the newest checkpoint as a pipeline, and stop.")
    ] = None,
    max_hours: Annotated[
        float | None, typer.Option(metavar="HOURS", help="Stop after so long, with a checkpoint to go on from.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the complete recipe, parameters, memory and data.")
    ] = False,
    processes: Annotated[
        int | None, typer.Option(min=1, help="With --dry-run: for so many accelerators, one process each.")
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> int:
    """Train a recipe. The same command resumes where the run stopped."""
    from unleak.train.config import RecipeError, dump_recipe, load_recipe

    terminal = Terminal(quiet, as_json)
    if processes is not None and not dry_run:
        raise ValueError("--processes: only tells --dry-run; to train with several: accelerate launch -m unleak.train")
    asked = [*(overrides or []), *([] if max_hours is None else [f"max_hours={max_hours}"])]
    try:
        checked = load_recipe(recipe, asked)
        if dry_run:
            from unleak.train.estimate import estimate_run

            told, why = None, ""
            try:
                told = estimate_run(checked, processes=processes or 1)
            except RecipeError:
                raise
            except (OSError, ValueError) as error:  # the recipe is whole; its model or its data are not on this machine
                why = " ".join(str(error).split())
            for line in dump_recipe(checked).splitlines():
                terminal.line(line)
            for line in told.lines if told else [f"not estimated: {why}"]:
                terminal.line(f"# {line}")
            estimate = {**asdict(told), "memory": told.memory} if told else {"not_estimated": why}
            terminal.json({"recipe": checked.model_dump(mode="json"), "estimate": estimate})
            return 0
        from unleak.train.export import export as write_export
        from unleak.train.trainer import train as run

        done = write_export(checked, export) if export else run(checked, quiet=quiet)
    except RecipeError as error:  # one line per problem: a recipe is mended faster when all are seen at once
        for line in str(error).splitlines():
            print_error(line.strip())
        return WRONG_INPUT
    terminal.line(str(done))
    terminal.json({"pipeline": str(done), "recipe": checked.model_dump(mode="json")})
    return 0
