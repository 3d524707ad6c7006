"""What an evaluation found: numbers of each video, and of all of them, as a page, a table and JSON."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from unleak import __version__
from unleak.data.atomic import written_whole
from unleak.measure.registry import metrics
from unleak.report.evaluate_page import page
from unleak.study.evaluate.kept import PAGE, RECORD, TABLE

__all__ = ["Evaluation"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The numbers of a folder of videos. `save` writes them; `lines` says them."""

    summary: Mapping[str, Mapping[str, Any]]
    """Name -> `value`, `low` and `high` of its 95 % interval (None where there is none), `groups`, perhaps a `note`."""
    rows: Sequence[Mapping[str, Any]]
    """Each measured video, references among them."""
    failed: Sequence[str]
    """What could not be measured, and why; each names its file."""
    names: Sequence[str]
    """The metrics that were asked for (`unleak.measure.registry`)."""
    estimators: Mapping[str, str]
    """Name of a number, or `flow` and `features` -> what estimated it."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """How it was measured: settings, versions, the way to reproduce it."""

    @property
    def videos(self) -> list[Mapping[str, Any]]:
        """Return the rows of the videos, without the references."""
        return [row for row in self.rows if not row["reference"]]

    @cached_property
    def headings(self) -> dict[str, dict[str, str]]:
        """`label`, `unit` and estimator (`by`) of each number in `summary`."""
        known, found = metrics(), dict[str, dict[str, str]]()
        for name in self.summary:
            one = known.get(name.removesuffix("_reference"))
            if one is None:
                by = self.estimators.get(name, "")
                found[name] = {"label": name.replace("_", " "), "unit": "", "by": by}
            else:
                label = f"{one.label} of the references" if name not in known else one.label
                found[name] = {"label": label, "unit": one.unit, "by": self.estimators.get(one.by or "", "")}
        return found

    @property
    def lines(self) -> list[str]:
        """Return the summary in words, a line for each number."""
        said = []
        samples = {name for row in self.rows for name in row["features"]}  # networks that are named after themselves
        for name, mean in self.summary.items():
            heading = self.headings[name]
            bounds = "" if mean["low"] is None else f" ({mean['low']:.4g} to {mean['high']:.4g})"
            unit = f" ({heading['unit']})" if heading["unit"] else ""
            by = f" [{heading['by']}]" if heading["by"] and name not in samples else ""
            note = f"; {mean['note']}" if mean.get("note") else ""
            count = f"{mean['groups']} {mean.get('of', 'videos')}"
            said.append(f"{heading['label']}{unit}{by}: {mean['value']:.4g}{bounds}, {count}{note}")
        return said

    @property
    def record(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "unleak": __version__,
            "summary": dict(self.summary),
            "headings": self.headings,
            "videos": len(self.videos),
            "references": len(self.rows) - len(self.videos),
            "failed": list(self.failed),
            **self.about,
            "estimators": dict(self.estimators),
            "rows": [{name: value for name, value in row.items() if name != "features"} for row in self.rows],
        }

    def save(self, folder: str | Path) -> Path:
        """Write evaluation.json, evaluation.csv and a page to `folder`; returns the path of the JSON file."""
        folder, record = Path(folder), self.record
        with written_whole(folder / RECORD) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        columns = [name for name in self.names if any(row.get(name) is not None for row in self.videos)]
        with written_whole(folder / TABLE) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["file", *columns])
            for row in self.videos:
                name = row["file"].encode("utf-8", "backslashreplace").decode()
                writer.writerow([name, *("" if row.get(column) is None else row[column] for column in columns)])
        with written_whole(folder / PAGE) as temporary:
            temporary.write_text(page(record, columns), encoding="utf-8")
        return folder / RECORD
