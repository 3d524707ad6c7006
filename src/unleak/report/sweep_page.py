"""A sweep as one HTML page that needs nothing else: videos in sync, motion against start, every setting."""

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).with_name("sweep_page.html")
_UNITS = {
    "timestep": "timestep",
    "fraction": "fraction of T",
    "sigma": "sigma",
    "log_snr": "log-SNR",
    "edm_sigma": "EDM sigma",
    "flow_sigma": "flow sigma",
}
_INFINITE = {"log_snr": "&#8722;&#8734;"}  # the others are infinite upwards; JSON has null for both


def page(record: Mapping[str, Any], videos: Sequence[bytes]) -> str:
    """The page of a sweep: `record` is `Sweep.record`, `videos` the MP4 file of each of its runs."""
    runs, size = record["runs"], record["video"]
    hues = [f"hsl({232 + 150 * k / max(1, len(runs) - 1):.0f} 72% 58%)" for k in range(len(runs))]
    highest = max(max(run["motion"]["per_pair"]) for run in runs)
    rest = {name: value for name, value in record.items() if name not in _ELSEWHERE}
    values = {
        "title": _text(record.get("title") or "Motion against start"),
        "lead": _text(record["lead"]) if "lead" in record else _lead(record),
        "width": str(size["width"]),
        "height": str(size["height"]),
        "card_width": "200" if size["width"] > size["height"] else "150",
        "columns": str(len(runs)),
        "num_frames": str(size["num_frames"]),
        "fps": f"{size['fps']:g}",
        "videos": "\n".join(
            _figure(index, run, hue, video, highest)
            for index, (run, hue, video) in enumerate(zip(runs, hues, videos, strict=True))
        ),
        "charts": _charts(runs, hues),
        "table": _table(runs),
        "motion_metric": _text(record["metric"]["motion"]),
        "camera_metric": _text(record["metric"]["camera"]),
        "settings": setting_list(rest | record.get("settings", {}) | size),
        "reproduce": _text(record.get("reproduce", "")),
        "versions": setting_list(record.get("versions", {})),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], TEMPLATE.read_text(encoding="utf-8"))


_ELSEWHERE = {"unleak", "title", "lead", "metric", "runs", "reproduce", "versions", "files", "settings", "video"}


def _lead(record: Mapping[str, Any]) -> str:
    runs, size = record["runs"], record["video"]
    count = f"{len(runs)} starts" if len(runs) > 1 else "One start"
    extent = f"{size['num_frames']} frames of {size['width']}x{size['height']}"
    text = f"{count}, the same noise (seed {record['seed']}), {extent}."
    if len(runs) > 1:
        low, high = (end(runs, key=lambda run: run["motion"]["score"]) for end in (min, max))
        text += (
            f" The motion score runs from {low['motion']['score']:.1f} at {low['start']['asked']}"
            f" to {high['motion']['score']:.1f} at {high['start']['asked']}."
        )
    return _text(text)


def _figure(index: int, run: Mapping[str, Any], hue: str, video: bytes, highest: float) -> str:
    start, pairs, pan = run["start"], run["motion"]["per_pair"], run["camera"]["pan"]
    asked, score = _text(start["asked"]), f"{run['motion']['score']:.1f}"
    source = f"data:video/mp4;base64,{base64.b64encode(video).decode()}"
    level = "full start" if start["fraction"] == 1 else f"log-SNR {_number(start['log_snr'])}"
    camera = "no camera motion found" if pan is None else f"camera {pan:.2f} px/frame"
    heights = [max(0.02, pair / highest if highest else 0) for pair in pairs]
    bars = "".join(f'<rect x="{k}.1" width=".8" y="{1 - y:.4f}" height="{y:.4f}"/>' for k, y in enumerate(heights))
    told = f'\n<div class="small">{_text(run["told"])}</div>' if "told" in run else ""
    return f"""<figure class="card" id="start-{index}" style="--hue: {hue}">
<video controls muted playsinline preload="auto" aria-label="Video from start {asked}" src="{source}"></video>
<figcaption>
<div class="asked"><span class="dot"></span>{asked}</div>
<div class="small">{level}</div>
<div class="score"><b>{score}</b> motion score</div>
<svg class="pairs" viewBox="0 0 {len(pairs)} 1" preserveAspectRatio="none" aria-hidden="true">{bars}</svg>
<div class="small">{camera}</div>{told}
</figcaption>
</figure>"""


def _charts(runs: Sequence[Mapping[str, Any]], hues: Sequence[str]) -> str:
    scores = [run["motion"]["score"] for run in runs]
    pans = [run["camera"]["pan"] for run in runs]
    return _chart("Motion score", "px of optical flow, summed over the pairs", runs, hues, scores, ".1f") + _chart(
        "Camera speed", "px of the video per frame", runs, hues, pans, ".2f"
    )


_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 460, 250, 46, 22, 26, 44


def _chart(
    title: str,
    unit: str,
    runs: Sequence[Mapping[str, Any]],
    hues: Sequence[str],
    values: Sequence[float | None],
    form: str,
) -> str:
    """Points joined by a line over the fraction of the process, noisiest to the left; a missing value is left out."""
    fractions = [run["start"]["fraction"] for run in runs]
    span = (max(fractions) - min(fractions)) or 1
    pad = 0.05 if max(fractions) > min(fractions) else 0.5
    step = _round_step(max((value for value in values if value is not None), default=1.0))
    top = step * (1 + max(int((value or 0) / step) for value in values))

    def across(fraction: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (pad + (1 - 2 * pad) * (max(fractions) - fraction) / span)

    def up(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / top

    grid = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{up(y):.1f}" y2="{up(y):.1f}"/>'
        f'<text x="{_LEFT - 8}" y="{up(y) + 4:.1f}" text-anchor="end">{y:g}</text>'
        for y in (round(k * step, 9) for k in range(round(top / step) + 1))
    )
    order = sorted((k for k in range(len(runs)) if values[k] is not None), key=lambda k: -fractions[k])
    line = " ".join(f"{across(fractions[k]):.1f},{up(values[k] or 0):.1f}" for k in order)
    points, ticks, free, free_value = [], [], 0.0, 0.0
    for k in sorted(range(len(runs)), key=lambda k: -fractions[k]):
        x, asked = across(fractions[k]), _text(runs[k]["start"]["asked"])
        if x - 3.6 * len(asked) >= free:  # of labels that would overlap, the later one is left out
            ticks.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 20}" text-anchor="middle">{asked}</text>')
            free = x + 3.6 * len(asked) + 6
        if (value := values[k]) is None:
            continue
        text = format(value, form)
        label = ""
        if x - 3.6 * len(text) >= free_value:
            label = f'<text class="value" x="{x:.1f}" y="{up(value) - 12:.1f}" text-anchor="middle">{text}</text>'
            free_value = x + 3.6 * len(text) + 4
        points.append(
            f'<a href="#start-{k}" style="--hue: {hues[k]}" aria-label="{title} {text} at {asked}">'
            f'<title>{asked}: {text}</title><circle cx="{x:.1f}" cy="{up(value):.1f}" r="7"/>{label}</a>'
        )
    axis = (
        f'<text x="{_LEFT}" y="{_HEIGHT - 6}">&#8592; more noise</text>'
        f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 6}" text-anchor="end">less noise &#8594;</text>'
    )
    return f"""<div class="card chart"><h3>{title}</h3><p class="soft">{unit}</p>
<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="group" aria-label="{title} against start">{grid}{"".join(ticks)}{axis}
<polyline class="curve" points="{line}"/>{"".join(points)}</svg></div>
"""


def _round_step(highest: float) -> float:
    """A round distance of grid lines, of which three to seven reach `highest`."""
    for exponent in range(-4, 7):
        for digit in (1, 2, 5):
            if digit * 10.0**exponent * 5 >= highest:
                return digit * 10.0**exponent
    return highest


def _table(runs: Sequence[Mapping[str, Any]]) -> str:
    heads = ["start", *_UNITS.values(), "process", "steps", "motion score", "camera px/frame", "pairs explained"]
    rows = []
    for run in runs:
        start, camera = run["start"], run["camera"]
        numbers = [_number(start[unit], _INFINITE.get(unit, "&#8734;")) for unit in _UNITS]
        explained = f"{camera['explained']} of {len(camera['per_pair'])}"
        measured = [f"{run['motion']['score']:.2f}", _number(camera["pan"]), explained]
        cells = [
            *numbers,
            _text(start["process"]),
            str(len(run["sigmas"]) - 1) if run["sigmas"] else "&#8211;",
            *measured,
        ]
        rows.append(
            f'<tr><th scope="row">{_text(start["asked"])}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        )
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def setting_list(values: Mapping[str, Any]) -> str:
    """Names and values as a list, what is nested under its own name; what is not set is left out."""
    return "\n".join(
        f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>"
        for name, value in _flat(values)
        if value not in (None, "", [])
    )


def _flat(values: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for name, value in values.items():
        full = f"{above} {name}".strip().replace("_", " ")
        flat += _flat(value, full) if isinstance(value, Mapping) else [(full, value)]
    return flat


def _number(value: float | None, none: str = "&#8211;") -> str:
    return none if value is None else f"{value:.4g}"


def _text(value: Any) -> str:
    return escape(", ".join(map(str, value)) if isinstance(value, list) else str(value))
