"""The measured rows of an evaluation on disk, so that a run that was stopped goes on."""

import json
import re
from pathlib import Path
from typing import Any

from unleak.data.reading import Record, lines_of, parse_json, read_json

__all__ = ["PAGE", "RECORD", "TABLE", "Kept", "check_out"]

RECORD, TABLE, PAGE = "evaluation.json", "evaluation.csv", "index.html"
_ROWS = re.compile(r"rows-([0-9a-f]{16})-[0-9]{1,9}\.jsonl")


class _Row(Record):
    """What every row says."""

    name: str


class Kept:
    """Rows of one process, by the key of their video: those that were there, and those that it adds."""

    def __init__(self, folder: Path, key: str, rank: int):
        """Read the rows of all processes with the settings `key` in `folder`, which is made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        self.rows: dict[str, dict[str, Any]] = {}
        for path in sorted(folder.glob(f"rows-{key}-*.jsonl")):
            for line in lines_of(path):
                try:
                    name = parse_json(line, _Row, str(path)).name
                except ValueError:  # of a run that was killed while it wrote
                    continue
                self.rows[name] = parse_json(line, dict, str(path))
        self._file = (folder / f"rows-{key}-{rank}.jsonl").open("a", encoding="utf-8")
        self._file.write("\n")  # after half a line, if that is how an earlier run ended

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row at once."""
        self.rows[row["name"]] = row
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def check_out(out: Path, key: str, *, overwrite: bool) -> None:
    """Raise ValueError if `out` holds results of other settings, or files that no evaluation wrote.

    With `overwrite`, what an evaluation wrote is deleted, and nothing else.
    """
    there = sorted(out.iterdir()) if out.is_dir() else []
    rows = [path for path in there if _ROWS.fullmatch(path.name) and path.is_file()]
    own = list(rows)
    if rows or _is_ours(out / RECORD):
        own += [path for path in there if path.name in (RECORD, TABLE, PAGE)]
    if others := [path for path in there if path not in own]:
        raise ValueError(f"{out} holds files of others ({others[0].name}); choose another --out")
    if overwrite:
        for path in own:
            path.unlink()
    elif {path.name.split("-")[1] for path in rows} - {key}:
        raise ValueError(f"{out} holds what other settings gave; give --overwrite or another --out")


def _is_ours(record: Path) -> bool:
    try:
        return "unleak" in read_json(record, dict)
    except (OSError, ValueError):
        return False
