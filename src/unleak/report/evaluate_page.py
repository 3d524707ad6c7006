"""An evaluation as one HTML page: the means with their intervals, and each video as a dot."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from unleak.measure.intervals import FEWEST
from unleak.measure.registry import metrics
from unleak.report.pages import render
from unleak.report.plots import Mean, dots
from unleak.report.sweep_page import NONE, hues_of

__all__ = ["page"]

_MOST_ROWS = 500


def page(record: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the page of `Evaluation.record`; `names` are the metrics that its videos have."""
    videos = [row for row in record["rows"] if not row["reference"]]
    known, summary = metrics(), record["summary"]
    hues = dict(zip(names, hues_of(len(names), turn=300), strict=True))
    charts = []
    for name in names:
        mean = summary[name]
        values = [row[name] for row in videos if row.get(name) is not None]
        plot = dots(values, Mean(known[name].label, hues[name], mean["value"], mean["low"], mean["high"]))
        charts.append({"title": known[name].label.capitalize(), "unit": known[name].unit, "svg": plot})
    shown = videos[:_MOST_ROWS]
    return render(
        "evaluate.html",
        title=f"Evaluation of {_count(len(videos), 'video')}",
        lead=_lead(record),
        failed=record["failed"],
        heads=["number", "mean", "95 % interval", "unit", "of", "estimated by"],
        rows=[_row(mean, record["headings"][name]) for name, mean in summary.items()],
        charts=charts if len(videos) > 1 else [],
        video_heads=["video", *(known[name].label for name in names)],
        video_rows=[
            [PurePath(row["file"]).name, *(NONE if row.get(name) is None else f"{row[name]:.4g}" for name in names)]
            for row in shown
        ],
        metrics=[{"label": known[name].label, "unit": known[name].unit, "about": known[name].about} for name in names],
        fewest=FEWEST,
        settings=record.get("settings", {}),
        reproduce=record.get("reproduce", ""),
        versions=record.get("versions", {}),
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _lead(record: Mapping[str, Any]) -> str:
    mean = record["summary"].get("motion_score")
    text = "" if mean is None else f"How far the pictures move: the mean motion score is {mean['value']:.1f}"
    other = record["summary"].get("motion_score_reference")
    if mean is not None and other is not None:
        text += f"; the {record['references']} real videos have {other['value']:.1f}"
    failed = len(record["failed"])
    return (text + "." if text else "") + (f" {_count(failed, 'item')} could not be measured." if failed else "")


def _row(mean: Mapping[str, Any], heading: Mapping[str, str]) -> list[str]:
    interval = NONE if mean["low"] is None else f"{mean['low']:.4g} to {mean['high']:.4g}"
    count = f"{mean['groups']} {mean.get('of', 'videos')}" + (f"; {mean['note']}" if mean.get("note") else "")
    return [heading["label"], f"{mean['value']:.4g}", interval, heading["unit"], count, heading["by"]]
