"""The recipes that ship with unleak, by name."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

__all__ = ["find_recipe", "shipped_recipes"]


def shipped_recipes() -> Mapping[str, Path]:
    """Return the file of each recipe that ships with unleak, by name."""
    return {file.stem: file for file in sorted((Path(__file__).parent / "recipes").glob("*.yaml"))}


def find_recipe(name_or_path: str | Path) -> Path:
    """Return the file of a recipe, which is given by its path or by the name of one that ships with unleak.

    A file comes first. `recipes/NAME.yaml`, where the recipes once were, means the shipped one if there
    is no such file. Raises ValueError with the nearest name if there is neither.
    """
    path, text = Path(name_or_path), str(name_or_path)
    known = shipped_recipes()
    if path.exists():
        return path
    if path.parts == ("recipes", f"{path.stem}.yaml"):
        text = path.stem
    if text in known:
        return known[text]
    if path.suffix in (".yaml", ".yml"):
        return path  # whose absence is told when it is opened
    close = get_close_matches(text, known, n=1, cutoff=0.4)
    meant = f"did you mean {close[0]}? " if close else ""
    raise ValueError(f"recipe {text!r}: no such file and no recipe of that name; {meant}`unleak recipes` lists them")


def summary(file: Path) -> str:
    """Return the first comment of a recipe, which says what it is for."""
    first = file.read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("#").strip()
