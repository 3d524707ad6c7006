"""`python -m unleak.train recipe.yaml` and `accelerate launch -m unleak.train recipe.yaml`."""

import argparse
import sys
from pathlib import Path

from unleak.train.config import load_recipe


def main() -> int:
    """Train a recipe, or export its newest checkpoint; 2 on a recipe that cannot be run."""
    parser = argparse.ArgumentParser(
        prog="python -m unleak.train", description="Train a recipe; the same command resumes."
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument(
        "--export", type=Path, metavar="FOLDER", help="write the newest checkpoint as a pipeline and stop"
    )
    arguments = parser.parse_args()
    try:
        recipe = load_recipe(arguments.recipe, arguments.overrides)
        from unleak.train.loop import export, train

        done = export(recipe, arguments.export) if arguments.export else train(recipe)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(done)
    return 0


if __name__ == "__main__":
    sys.exit(main())
