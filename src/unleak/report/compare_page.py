"""A comparison as one HTML page that needs nothing else, in the frame of the sweep's page: its look and its player."""

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from unleak.measure.intervals import FEWEST
from unleak.report.sweep_page import TEMPLATE, setting_list

__all__ = ["page"]


def page(record: Mapping[str, Any], films: Mapping[int, bytes], metrics: Sequence[tuple[str, str]]) -> str:
    """The page of `Comparison.record`; `films` are the MP4 files of those of its videos that are shown."""
    cases, size = record["cases"], record["video"]
    hues = [f"hsl({232 + 300 * k / max(1, len(cases)):.0f} 68% 56%)" for k in range(len(cases))]
    head, rest = TEMPLATE.read_text(encoding="utf-8").split("<main>")
    values = {
        "title": _text(record.get("title") or "Comparison"),
        "width": str(size["width"]),
        "height": str(size["height"]),
        "card_width": "200" if size["width"] > size["height"] else "150",
        "columns": str(len(cases)),
        "num_frames": str(size["num_frames"]),
        "fps": f"{size['fps']:g}",
    }

    def filled(text: str) -> str:
        return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], text)

    tail = rest[rest.index("</main>") :]
    return f"{filled(head)}<main>{_main(record, films, metrics, hues)}{filled(tail)}"


_ELSEWHERE = {"unleak", "title", "cases", "photos", "videos", "metrics", "files", "video", "versions", "reproduce"}


def _main(
    record: Mapping[str, Any], films: Mapping[int, bytes], metrics: Sequence[tuple[str, str]], hues: Sequence[str]
) -> str:
    cases, videos = record["cases"], record["videos"]
    highest = max((max(videos[k]["motion"]["per_pair"]) for k in films), default=0)
    places = dict.fromkeys((videos[k]["photo"], videos[k]["seed"]) for k in films)
    sections = []
    for photo, seed in places:
        cards = [
            _figure(k, videos[k], cases[videos[k]["case"]]["label"], hues[videos[k]["case"]], film, highest)
            for k, film in films.items()
            if (videos[k]["photo"], videos[k]["seed"]) == (photo, seed)
        ]
        name = _text(record["photos"][photo]["file"])
        sections.append(
            f"<h2>{name}, seed {seed}</h2>\n"
            f'<section class="videos" aria-label="Videos of {name}">{"".join(cards)}</section>'
        )
    total = len({(video["photo"], video["seed"]) for video in videos})
    size = record["video"]
    lead = (
        f"{len(cases)} cases, {len(record['photos'])} photos, {total} pairs of photo and noise, the same for every"
        f" case; {size['num_frames']} frames of {size['width']}x{size['height']}."
    )
    if total > len(places):
        lead += f" {len(places)} of the pairs are shown; the others are files beside this page and count in the table."
    charts = "".join(_chart(name, text, cases, hues) for name, text in metrics)
    explained = "".join(f"<p>{_text(text[:1].upper() + text[1:])}.</p>" for _, text in metrics)
    about = {name: value for name, value in record.items() if name not in _ELSEWHERE}
    each = "".join(
        f'<h3>{_text(case["label"])}</h3><div class="card"><dl>{setting_list(_settings(case, metrics))}</dl></div>'
        for case in cases
    )
    return f"""
<header><h1>{_text(record.get("title") or "Comparison")}</h1><p class="soft">{_text(lead)}</p></header>
{"".join(sections)}
<h2>Means over photos{", with 95 % intervals" if len(record["photos"]) >= FEWEST else ""}</h2>
<div class="charts">{charts}{_curve(cases, videos, hues)}</div>
<h2>Table</h2>
<div class="card scroll" tabindex="0" role="region" aria-label="Table of cases">{_table(record, metrics)}</div>
<h2>How the numbers are made</h2>
{explained}
<p>Optical flow: {_text(record["metrics"]["estimator"])}. Motion and flow measure change, not good motion: flicker and
dissolving pictures count too. 95 % intervals are bootstrapped over photos; of fewer than {FEWEST} there are none.</p>
<h2>Settings</h2>
<div class="card"><dl>{setting_list(about | dict(size))}</dl></div>
{each}
<h2>Make it again</h2>
<div class="card"><pre>{_text(record.get("reproduce", ""))}</pre></div>
<h2>Versions</h2>
<div class="card"><dl>{setting_list(record.get("versions", {}))}</dl></div>
"""


def _settings(case: Mapping[str, Any], metrics: Sequence[tuple[str, str]]) -> dict[str, Any]:
    measured = {name for metric, _ in metrics for name in (metric, f"{metric}_more")}
    return {name: value for name, value in case.items() if name not in measured | {"label"}}


def _figure(index: int, video: Mapping[str, Any], label: str, hue: str, film: bytes, highest: float) -> str:
    per_pair, pan = video["motion"]["per_pair"], video["camera"]["pan"]
    heights = [max(0.02, pair / highest if highest else 0) for pair in per_pair]
    bars = "".join(f'<rect x="{k}.1" width=".8" y="{1 - y:.4f}" height="{y:.4f}"/>' for k, y in enumerate(heights))
    camera = "no camera motion found" if pan is None else f"camera {pan:.2f} px/frame"
    source = f"data:video/mp4;base64,{base64.b64encode(film).decode()}"
    return f"""<figure class="card" id="video-{index}" style="--hue: {hue}">
<video controls muted playsinline preload="auto" aria-label="{_text(label)}" src="{source}"></video>
<figcaption><div class="asked"><span class="dot"></span>{_text(label)}</div>
<div class="score"><b>{video["motion"]["score"]:.1f}</b> motion score</div>
<svg class="pairs" viewBox="0 0 {len(per_pair)} 1" preserveAspectRatio="none" aria-hidden="true">{bars}</svg>
<div class="small">{camera}; first frame {video["first_frame"]:.1f} dB</div></figcaption></figure>"""


_WIDTH, _LEFT, _RIGHT, _ROW, _HEAD = 460, 150, 20, 26, 12


def _chart(name: str, text: str, cases: Sequence[Mapping[str, Any]], hues: Sequence[str]) -> str:
    """A row for each case: its mean as a dot, its interval as a line."""
    title, _, unit = text.partition(": ")
    means = [case[name] for case in cases]
    ends = [value for mean in means for value in (mean["value"], mean["low"], mean["high"]) if value is not None]
    low, high = min([0.0, *ends]), max(ends)
    span = (high - low) or 1.0
    height = _HEAD + _ROW * len(cases) + 24

    def across(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (value - low) / span

    rows = []
    for k, (case, mean) in enumerate(zip(cases, means, strict=True)):
        y, label = _HEAD + _ROW * (k + 0.5), case["label"]
        short = label if len(label) <= 22 else label[:21] + "…"
        bar = ""
        if mean["low"] is not None:
            bar = (
                f'<line x1="{across(mean["low"]):.1f}" x2="{across(mean["high"]):.1f}" y1="{y}" y2="{y}"'
                f' stroke="{hues[k]}" stroke-width="3" stroke-linecap="round"/>'
            )
        rows.append(
            f'<g style="--hue: {hues[k]}"><title>{_text(label)}: {_mean(mean)}</title>'
            f'<text x="{_LEFT - 10}" y="{y + 4}" text-anchor="end">{_text(short)}</text>{bar}'
            f'<circle cx="{across(mean["value"]):.1f}" cy="{y}" r="6"/></g>'
        )
    foot = height - 6
    axis = (
        f'<line class="grid" x1="{across(low):.1f}" x2="{across(low):.1f}" y1="{_HEAD}" y2="{height - 24}"/>'
        f'<text x="{across(low):.1f}" y="{foot}" text-anchor="middle">{low:.3g}</text>'
        f'<text x="{across(low + span):.1f}" y="{foot}" text-anchor="end">{low + span:.3g}</text>'
    )
    return f"""<div class="card chart"><h3>{_text(title.capitalize())}</h3><p class="soft">{_text(unit)}</p>
<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{_text(title)} of each case">{axis}{"".join(rows)}</svg>
</div>
"""


def _curve(cases: Sequence[Mapping[str, Any]], videos: Sequence[Mapping[str, Any]], hues: Sequence[str]) -> str:
    """The mean motion of each pair of frames, a line for each case."""
    lines = []
    for k in range(len(cases)):
        own = [video["motion"]["per_pair"] for video in videos if video["case"] == k]
        lines.append([sum(pair) / len(own) for pair in zip(*own, strict=False)])
    high, height, left = max(max(line) for line in lines) or 1.0, 130, 44
    step = (_WIDTH - left - _RIGHT) / max(1, len(lines[0]) - 1)

    def drawn(line: Sequence[float], hue: str, label: str) -> str:
        points = [f"{left + step * k:.1f},{height - 24 - (height - 40) * y / high:.1f}" for k, y in enumerate(line)]
        only = f'<circle cx="{left}" cy="{points[0].partition(",")[2]}" r="4" fill="{hue}"/>' if len(line) == 1 else ""
        return (
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{hue}" stroke-width="2"'
            f' stroke-linejoin="round"><title>{_text(label)}</title></polyline>{only}'
        )

    each = "".join(drawn(line, hue, case["label"]) for line, hue, case in zip(lines, hues, cases, strict=True))
    right, foot = _WIDTH - _RIGHT, height - 24
    axis = (
        f'<line class="grid" x1="{left}" x2="{right}" y1="{foot}" y2="{foot}"/>'
        f'<text x="{left - 8}" y="{foot + 4}" text-anchor="end">0</text>'
        f'<text x="{left - 8}" y="20" text-anchor="end">{high:.3g}</text>'
        f'<text x="{left}" y="{height - 6}">first pair of frames</text>'
        f'<text x="{right}" y="{height - 6}" text-anchor="end">last pair</text>'
    )
    return f"""<div class="card chart"><h3>Motion along the video</h3>
<p class="soft">mean optical flow from frame to frame, px at 800x450, over all videos of a case</p>
<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Motion along the video of each case">{axis}{each}</svg>
</div>
"""


def _table(record: Mapping[str, Any], metrics: Sequence[tuple[str, str]]) -> str:
    heads = ["case"]
    for _, text in metrics:
        title = text.partition(": ")[0]
        heads += [title, f"{title}, more than {record['cases'][0]['label']}"]
    rows = []
    for case in record["cases"]:
        cells = []
        for name, _ in metrics:
            more = case[f"{name}_more"]
            cells += [_mean(case[name]), "" if more is None else _mean(more, sign="+")]
        data = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f'<tr><th scope="row">{_text(case["label"])}</th>{data}</tr>')
    head = "".join(f'<th scope="col">{_text(text)}</th>' for text in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _mean(mean: Mapping[str, Any], sign: str = "") -> str:
    text = f"{mean['value']:{sign}.2f}"
    return text if mean["low"] is None else f"{text} ({mean['low']:{sign}.2f} to {mean['high']:{sign}.2f})"


def _text(value: Any) -> str:
    return escape(str(value).encode("utf-8", "backslashreplace").decode())
