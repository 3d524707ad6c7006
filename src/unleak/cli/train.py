"""`unleak train`: run a recipe."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from unleak.cli.errors import WRONG_INPUT, describe_error, print_error
from unleak.cli.options import BASIC, OUTPUT, Group, argument, command, number, option, to_text, whole
from unleak.cli.studies import Spoken
from unleak.cli.terminal import Terminal

if TYPE_CHECKING:  # this module is imported for `unleak --help`, which needs none of these
    from unleak.train.config import Recipe


@dataclass(frozen=True)
class Training(Group):
    """What is trained, and how far."""

    panel = BASIC

    recipe: Annotated[str, argument("RECIPE", "A YAML file, or a name that `unleak recipes` lists.")]
    overrides: Annotated[
        list[str] | None, option("KEY=VALUE", "Change a value of the recipe; repeatable.", "--set")
    ] = None
    max_hours: Annotated[
        float | None,
        option("HOURS", "Stop after so long, with a checkpoint to go on from.", parse=number(0, 1_000_000)),
    ] = None
    export: Annotated[
        str | None,
        option("FOLDER", "Write the newest checkpoint as a pipeline, and stop.", parse=to_text, panel=OUTPUT),
    ] = None
    dry_run: Annotated[
        bool,
        option("", "Print the whole recipe, parameters, memory and data; train nothing.", "--dry-run", panel=OUTPUT),
    ] = False
    processes: Annotated[
        int | None,
        option("N", "With --dry-run: for so many accelerators, one process each.", parse=whole(1, 10_000)),
    ] = None

    def __post_init__(self) -> None:
        if self.processes is not None and not self.dry_run:
            raise ValueError(
                "--processes: only tells --dry-run; to train with several: accelerate launch -m unleak.train"
            )


@command
def train(training: Training, output: Spoken) -> int:
    """Train a recipe. The same command resumes where the run stopped.

    Ctrl-C ends the step at hand, saves a checkpoint and stops. With --dry-run nothing is trained; the exit status is 2
    if the recipe cannot be run on this machine.
    """
    from unleak.train.config import RecipeError, load_recipe

    terminal = output.terminal()
    hours = [] if training.max_hours is None else [f"max_hours={training.max_hours}"]
    try:
        recipe = load_recipe(training.recipe, [*(training.overrides or []), *hours])
        if training.dry_run:
            return _planned(recipe, training.processes or 1, terminal)
        from unleak.train.export import export
        from unleak.train.trainer import train as run

        done = export(recipe, Path(training.export)) if training.export else run(recipe, quiet=output.quiet)
    except RecipeError as error:  # one line per problem: a recipe is mended faster when all are seen at once
        for line in str(error).splitlines():
            print_error(line.strip())
        return WRONG_INPUT
    terminal.line(str(done))
    terminal.json({"pipeline": str(done), "recipe": recipe.model_dump(mode="json")})
    return 0


def _planned(recipe: "Recipe", processes: int, terminal: Terminal) -> int:
    """Print the recipe and what it takes, and return the exit status.

    That is 2 for a whole recipe whose model or data are not on this machine: it is printed, with what is missing.
    """
    from unleak.train.config import RecipeError, dump_recipe
    from unleak.train.estimate import estimate_run

    estimate, fault = None, ""
    try:
        estimate = estimate_run(recipe, processes=processes)
    except RecipeError:
        raise
    except (OSError, ValueError) as error:
        fault = " ".join(describe_error(error).split())
    for line in dump_recipe(recipe).splitlines():
        terminal.line(line)
    for line in estimate.lines if estimate else []:
        terminal.line(f"# {line}")
    about = {**asdict(estimate), "memory": estimate.memory} if estimate else {"not_estimated": fault}
    terminal.json({"recipe": recipe.model_dump(mode="json"), "estimate": about})
    if fault:
        terminal.failure(f"this recipe cannot be run here: {fault}")
    return WRONG_INPUT if fault else 0
