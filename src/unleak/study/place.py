"""The folder that the result of a study goes to: a new one each time, unless an older result is to be replaced."""

from collections.abc import Sequence
from pathlib import Path

from unleak.data.reading import Record, read_json

__all__ = ["ResultExistsError", "check_replaceable", "free_folder", "free_folders"]


class ResultExistsError(ValueError):
    """The folder holds an older result, which may be replaced where the user asks for it."""


def free_folder(folder: Path, *, overwrite: bool, record: str = "sweep.json") -> Path:
    """Return `folder`, or where it holds an older result the first of `folder-2`, `folder-3`, ... that does not.

    record: the JSON file in which a result lists its own files. overwrite: return `folder` whatever older result it
    holds. Raises ValueError if it holds files of others, or is none.
    """
    found, number = folder, 1
    while True:
        try:
            check_replaceable(found, overwrite=overwrite, record=record)
        except ResultExistsError:
            number += 1
            found = folder.with_name(f"{folder.name}-{number}")
        else:
            return found


def free_folders(wanted: Sequence[Path], *, overwrite: bool, record: str = "sweep.json") -> list[Path]:
    """Do what `free_folder` does for several folders; the second one of a name is numbered too."""
    found: list[Path] = []
    for folder in wanted:
        number = 1 + wanted[: len(found)].count(folder)
        named = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        place = free_folder(named, overwrite=overwrite, record=record)
        while place in found:
            number += 1
            place = free_folder(folder.with_name(f"{folder.name}-{number}"), overwrite=overwrite, record=record)
        found.append(place)
    return found


class _Result(Record):
    """What an older result says of itself."""

    files: list[str]


def check_replaceable(folder: Path, *, overwrite: bool, record: str = "sweep.json") -> None:
    """Raise ValueError if a result must not be written to `folder`: it holds something, or not just an older result.

    record: the JSON file in which a result lists its own files, as `files`. Without `overwrite` an older result raises
    ResultExistsError.
    """
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if not there and (folder.is_dir() or not folder.exists()):
        return
    try:
        known = set(read_json(folder / record, _Result).files)
    except (OSError, ValueError):
        known = set()
    if others := sorted(there - known):
        raise ValueError(f"{folder} holds files of others ({others[0]}); choose another folder")
    if not there:
        raise ValueError(f"{folder} is not a folder; choose another")
    if not overwrite:
        raise ResultExistsError(f"{folder} exists; give --overwrite (overwrite=True) or another folder")
