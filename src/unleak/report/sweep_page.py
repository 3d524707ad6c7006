"""A sweep as one HTML page: the videos in sync, motion against start, every setting."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from unleak.report.pages import data_url, render
from unleak.report.plots import against_start

__all__ = ["NONE", "hues_of", "named", "page"]

_UNITS = {
    "timestep": "timestep",
    "fraction": "fraction of T",
    "sigma": "sigma",
    "log_snr": "log-SNR",
    "edm_sigma": "EDM sigma",
    "flow_sigma": "flow sigma",
}
NONE = "\u2013"
_INFINITE = {"log_snr": "\u2212\u221e"}  # the others are infinite upwards; JSON has null for both
_ELSEWHERE = {"unleak", "title", "lead", "metric", "runs", "reproduce", "versions", "files", "settings", "video"}


def page(record: Mapping[str, Any], videos: Sequence[bytes]) -> str:
    """Return the page of a sweep: `record` is `Sweep.record`, `videos` the MP4 file of each of its runs.

    A record may bring a `title` and a `lead` (what the page says in one sentence), and each run a `label` in place of
    its start, and a line `told`.
    """
    runs, size = record["runs"], record["video"]
    hues = hues_of(len(runs))
    rest = {name: value for name, value in record.items() if name not in _ELSEWHERE}
    return render(
        "sweep.html",
        title=record.get("title") or "Motion against start",
        lead=record.get("lead") or _lead(record),
        video=dict(size),
        columns=len(runs),
        runs=[
            {"label": run["start"]["asked"], "told": None, "best": False, **run}
            | {"hue": hue, "source": data_url("video/mp4", video), "plain": run["start"]["fraction"] == 1}
            for run, hue, video in zip(runs, hues, videos, strict=True)
        ],
        highest=max(max(run["motion"]["per_pair"]) for run in runs),
        charts=_charts(runs, hues),
        heads=["start", *_UNITS.values(), "process", "steps", "motion score", "camera px/frame", "pairs explained"],
        rows=[_row(run) for run in runs],
        metric=record["metric"],
        settings=named(rest | record.get("settings", {}) | size),
        reproduce=record.get("reproduce", ""),
        versions=record.get("versions", {}),
    )


def hues_of(count: int, *, first: int = 232, turn: int = 150) -> list[str]:
    """Return `count` colours that are told apart."""
    from colorsys import hls_to_rgb

    found = []
    for k in range(count):
        rgb = hls_to_rgb((first + turn * k / max(1, count - 1)) % 360 / 360, 0.58, 0.7)
        found.append("#" + "".join(f"{round(255 * one):02x}" for one in rgb))
    return found


def named(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings for a page: a photo by its name, without hashes, which stand in the JSON file."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name == "sha256":
            continue
        if isinstance(value, Mapping):
            found[name] = named(value)
        elif name in ("file", "source", "mask", "moments") and isinstance(value, str):
            found[name] = PurePath(value).name if PurePath(value).is_absolute() else value
        else:
            found[name] = value
    return found


def _lead(record: Mapping[str, Any]) -> str:
    runs, size = record["runs"], record["video"]
    extent = f"{size['num_frames']} frames of {size['width']}x{size['height']}, seed {record['seed']}"
    if len(runs) == 1:
        return f"One photo, animated from one noise level (its start): {extent}."
    text = (
        f"The same photo and the same noise, animated {len(runs)} times: {extent}. Only the noise level at which the"
        " model begins, the start, differs."
    )
    low, high = (end(runs, key=lambda run: run["motion"]["score"]) for end in (min, max))
    return (
        f"{text} The motion score runs from {low['motion']['score']:.1f} at {low['start']['asked']} to"
        f" {high['motion']['score']:.1f} at {high['start']['asked']}."
    )


def _charts(runs: Sequence[Mapping[str, Any]], hues: Sequence[str]) -> list[dict[str, Any]]:
    fractions, labels = [run["start"]["fraction"] for run in runs], [run["start"]["asked"] for run in runs]
    joined = not any("seed" in run for run in runs)  # one noise for all
    of = {
        ("Motion score", "how far the picture moves: px of optical flow, over the whole video", ".1f"): [
            run["motion"]["score"] for run in runs
        ],
        ("Camera speed", "px of the video per frame", ".2f"): [run["camera"]["pan"] for run in runs],
    }
    return [
        {"title": title, "unit": unit, "svg": against_start(fractions, labels, values, hues, form, joined=joined)}
        for (title, unit, form), values in of.items()
    ]


def _row(run: Mapping[str, Any]) -> list[str]:
    start, camera = run["start"], run["camera"]
    return [
        start["asked"],
        *(_number(start[unit], _INFINITE.get(unit, "∞")) for unit in _UNITS),
        start["process"],
        str(len(run["sigmas"]) - 1) if run["sigmas"] else NONE,
        f"{run['motion']['score']:.2f}",
        _number(camera["pan"], NONE),
        f"{camera['explained']} of {len(camera['per_pair'])}",
    ]


def _number(value: float | None, none: str) -> str:
    return none if value is None else f"{value:.4g}"
