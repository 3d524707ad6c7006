"""A diagnosis as one HTML page: the verdict in words, the curve, and what else makes videos stand still."""

from collections.abc import Mapping
from typing import Any

from unleak.report.pages import render
from unleak.report.sweep_page import NONE, named

__all__ = ["page"]

_ORDER = ("suspect", "unknown", "fine")


def page(record: Mapping[str, Any], chart: Any) -> str:
    """Return the page of `Diagnosis.record`; `chart` is the curve as SVG."""
    model, verdict = record.get("model", {}), record["verdict"]
    sentences = list(verdict["sentences"])
    causes = sorted(record.get("other_causes", []), key=lambda cause: _ORDER.index(cause["state"]))
    about = {"model": model, "source": record.get("source"), "loras": record.get("loras")}
    size, settings = record.get("video", {}), record.get("settings", {})
    return render(
        "diagnose.html",
        title=f"{model.get('name', 'A model')}: {verdict['label']}",
        lead=_lead(record),
        verdict=[one for one in sentences if not one.startswith("Limits:")],
        limits=[one for one in sentences if one.startswith("Limits:")],
        bad=verdict["label"] in ("leaks", "loses motion"),
        chart=chart,
        chart_unit=_chart_unit(record),
        causes=causes,
        heads=["test", "who", "start", "sigma", "kept", "95 % interval", "amount", "clips"],
        rows=[_row(one) for one in record["curve"]],
        settings=named({**about, **settings, **size}),
        reproduce=record.get("reproduce", ""),
        versions=record.get("versions", {}),
    )


def _lead(record: Mapping[str, Any]) -> str:
    clips = record["clips"]
    moving = sum(one >= clips["still_below"] for one in clips["motion"])
    kind = "made of photos, of known motion" if record.get("known_motion") else "real"
    return (
        f"Does the model lose motion to its conditioning image? Tested on {moving} clips that move ({kind}), from"
        f" {len(record['starts'])} noise levels."
    )


def _chart_unit(record: Mapping[str, Any]) -> str:
    oracle = (
        " The oracle knows every way in which each photo may move: what it brings back can be seen in the noise."
        if record.get("known_motion")
        else ""
    )
    return f"1: all of it; 0: none.{oracle} Vertical lines are 95 % intervals over clips."


def _row(one: Mapping[str, Any]) -> list[str]:
    low, high = one["kept_low"], one["kept_high"]
    return [
        one["test"],
        one["who"] or NONE,
        one["start"] or NONE,
        NONE if one["sigma"] is None else f"{one['sigma']:.3g}",
        f"{one['kept_value']:.2f}",
        NONE if low is None else f"{low:.2f} to {high:.2f}",
        f"{one['amount_value']:.2f}",
        str(one["clips"]),
    ]
