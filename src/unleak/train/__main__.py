"""`python -m unleak.train recipe.yaml` and `accelerate launch -m unleak.train recipe.yaml`."""

import argparse
import sys
from pathlib import Path

from unleak.train.config import load_recipe


def main(arguments: list[str] | None = None) -> int:
    """Train a recipe, or export its newest checkpoint; 2 on a recipe that cannot be run."""
    parser = argparse.ArgumentParser(
        prog="python -m unleak.train", description="Train a recipe; the same command resumes."
    )
    parser.add_argument("recipe", help="the file of a recipe, or a name that `unleak recipes` lists")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--max-hours", type=float, metavar="HOURS", help="stop after so long, to go on later")
    parser.add_argument(
        "--export", type=Path, metavar="FOLDER", help="write the newest checkpoint as a pipeline and stop"
    )
    options = parser.parse_args(arguments)
    try:
        hours = [] if options.max_hours is None else [f"max_hours={options.max_hours}"]
        recipe = load_recipe(options.recipe, options.overrides + hours)
        # Only now: --help and a wrong recipe need neither torch nor diffusers.
        from accelerate import PartialState

        from unleak.train.export import export
        from unleak.train.trainer import train

        done = export(recipe, options.export) if options.export else train(recipe)
    except (ValueError, OSError) as error:
        about = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else error
        print(about, file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # the run has said at which step it stopped
        return 130
    if PartialState().is_main_process:
        print(done)
    return 0


if __name__ == "__main__":
    sys.exit(main())
