"""`unleak recipes`: the training recipes that ship with unleak."""

from typing import Annotated, Any

import typer

from unleak.cli.terminal import Terminal

_Context: Any = typer.Context.__base__  # see sweep

recipes = typer.Typer(help="List the training recipes that ship with unleak; show one.")
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@recipes.callback(invoke_without_command=True)
def table(context: _Context, as_json: _Json = False) -> None:
    """List the recipes. Every name goes to `unleak train`."""
    if context.invoked_subcommand is not None:
        return
    from unleak.train.recipe_files import shipped_recipes, summary

    terminal, found = Terminal(as_json=as_json), shipped_recipes()
    width = max(map(len, found))
    for name, file in found.items():
        terminal.line(f"{name:<{width}}  {summary(file)}")
    terminal.note("")
    terminal.note("`unleak train NAME --set data.path=CLIPS` runs one")
    terminal.note("`unleak recipes show NAME > mine.yaml` copies one, to be changed")
    terminal.json({"recipes": [{"name": name, "summary": summary(file)} for name, file in found.items()]})


@recipes.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that `unleak recipes` lists.")],
    as_json: _Json = False,
) -> None:
    """Print a recipe as it is, with its comments, to be saved and changed."""
    from unleak.train.recipe_files import find_recipe

    file = find_recipe(name)
    text, terminal = file.read_text(encoding="utf-8"), Terminal(as_json=as_json)
    for line in text.rstrip().splitlines():
        terminal.line(line)
    terminal.json({"name": file.stem, "recipe": text})
