"""A comparison as one HTML page: the videos of all cases in sync, and the means of each metric."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from unleak.measure.intervals import FEWEST
from unleak.measure.registry import metrics
from unleak.report.pages import data_url, render
from unleak.report.plots import Mean, along, means
from unleak.report.sweep_page import hues_of, named

__all__ = ["page"]

_ELSEWHERE = {"unleak", "title", "cases", "photos", "videos", "metrics", "files", "video", "versions", "reproduce"}


def page(record: Mapping[str, Any], films: Mapping[int, bytes]) -> str:
    """Return the page of `Comparison.record`; `films` are the MP4 files of those of its videos that are shown."""
    cases, videos = record["cases"], record["videos"]
    names = [name for name in record["metrics"] if name != "estimator"]
    hues, known = hues_of(len(cases), turn=300 - 300 // max(2, len(cases))), metrics()
    rest = {name: value for name, value in record.items() if name not in _ELSEWHERE}
    return render(
        "compare.html",
        title=record.get("title") or "Comparison",
        lead=_lead(record, films),
        video=dict(record["video"]),
        columns=len(cases),
        places=_places(record, films, hues),
        highest=max((max(videos[k]["motion"]["per_pair"]) for k in films), default=0),
        intervals=len(record["photos"]) >= FEWEST,
        charts=_charts(record, names, hues),
        heads=_heads(cases, names),
        rows=[_row(case, names) for case in cases],
        metrics=[{"label": known[name].label, "unit": known[name].unit, "about": known[name].about} for name in names],
        estimator=record["metrics"]["estimator"],
        fewest=FEWEST,
        cases=[{"label": case["label"], "settings": named(_settings(case, names))} for case in cases],
        settings=named(rest | record["video"]),
        reproduce=record.get("reproduce", ""),
        versions=record.get("versions", {}),
    )


def _lead(record: Mapping[str, Any], films: Mapping[int, bytes]) -> str:
    cases, videos, size = record["cases"], record["videos"], record["video"]
    total = len({(video["photo"], video["seed"]) for video in videos})
    shown = len({(videos[k]["photo"], videos[k]["seed"]) for k in films})
    text = (
        f"The same {_count(len(record['photos']), 'photo')} and the same noise, animated in"
        f" {_count(len(cases), 'way')}: {size['num_frames']} frames of {size['width']}x{size['height']}."
    )
    if len(cases) > 1 and "motion_score" in record["metrics"]:
        first, most = cases[0], max(cases, key=lambda case: case["motion_score"]["value"])
        if most is not first:
            text += (
                f" What moves most: {most['label']}, with a motion score of {most['motion_score']['value']:.1f};"
                f" {first['label']} has {first['motion_score']['value']:.1f}."
            )
    if total > shown:
        text += f" {shown} of {total} pairs of photo and noise are shown; the others are files beside this page."
    return text


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _places(record: Mapping[str, Any], films: Mapping[int, bytes], hues: Sequence[str]) -> list[dict[str, Any]]:
    """The videos that are shown, by photo and seed."""
    found: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for k, film in films.items():
        video = record["videos"][k]
        found.setdefault((video["photo"], video["seed"]), []).append({
            "index": k,
            "label": record["cases"][video["case"]]["label"],
            "hue": hues[video["case"]],
            "source": data_url("video/mp4", film),
            "motion": video["motion"],
            "camera": video["camera"],
            "first_frame": video["values"].get("first_frame_psnr"),
        })  # fmt: skip
    return [
        {"photo": PurePath(record["photos"][photo]["file"]).name, "seed": seed, "videos": videos}
        for (photo, seed), videos in found.items()
    ]


def _charts(record: Mapping[str, Any], names: Sequence[str], hues: Sequence[str]) -> list[dict[str, Any]]:
    known, cases = metrics(), record["cases"]
    charts = []
    for name in names:
        rows = [
            Mean(case["label"], hue, case[name]["value"], case[name]["low"], case[name]["high"])
            for case, hue in zip(cases, hues, strict=True)
            if case[name] is not None
        ]
        label, unit = known[name].label.capitalize(), known[name].unit
        charts.append({"title": label, "unit": unit, "svg": means(rows), "wide": False})
    lines = []
    for k, (case, hue) in enumerate(zip(cases, hues, strict=True)):
        own = [video["motion"]["per_pair"] for video in record["videos"] if video["case"] == k]
        lines.append((case["label"], hue, [sum(pair) / len(own) for pair in zip(*own, strict=True)]))
    unit = "mean optical flow from frame to frame, px at 800x450, over all videos of a case"
    return [*charts, {"title": "Motion along the video", "unit": unit, "svg": along(lines), "wide": True}]


def _settings(case: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """How the videos of a case were made: what is not measured."""
    measured = {"label", *names, *(f"{name}_more" for name in names)}
    return {name: value for name, value in case.items() if name not in measured}


def _heads(cases: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    known = metrics()
    return ["case", *(text for name in names for text in (known[name].label, f"more than {cases[0]['label']}"))]


def _row(case: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    cells = [case["label"]]
    for name in names:
        cells += [_mean(case[name]), _mean(case[f"{name}_more"], sign="+")]
    return cells


def _mean(mean: Mapping[str, Any] | None, sign: str = "") -> str:
    if mean is None:
        return ""
    text = f"{mean['value']:{sign}.2f}"
    return text if mean["low"] is None else f"{text} ({mean['low']:{sign}.2f} to {mean['high']:{sign}.2f})"
