"""What the page shows, as HTML: both videos with their numbers, a level in all units."""

import base64
import re
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from unleak.animate.knobs import Knob
from unleak.measure.registry import metrics
from unleak.study.attempt import Attempt
from unleak.study.compare.result import Made
from unleak.study.diagnose.leakage import CHART, Diagnosis
from unleak.study.sweep import Run
from unleak.study.tune.result import Tuned

__all__ = ["EMPTY", "HEADER", "attempt", "diagnosis", "found", "framed", "knobs", "level", "notes", "pair", "refused"]

_UNITS = {
    "timestep": "timestep",
    "fraction": "of T",
    "sigma": "sigma",
    "log_snr": "log-SNR",
    "edm_sigma": "EDM sigma",
    "flow_sigma": "flow sigma",
}

HEADER = """<header class="unleak-head"><h1>unleak</h1>
<p>One photo, the same noise, animated twice: by the model as it is, and with its leak fixed.</p></header>"""

EMPTY = """<div class="unleak-pair unleak-empty">
<div class="unleak-card"><div class="unleak-screen"></div>
<p><b>Plain</b>the model as it is: it tends to copy the photo</p></div>
<div class="unleak-card"><div class="unleak-screen"></div>
<p><b>Fixed</b>started later, where copying does not pay</p></div>
</div>"""


def level(found: Mapping[str, Any]) -> str:
    """Show a level, as `Settings.level` or a run's start has it, in every unit; its text where no more is known."""
    if "process" not in found:
        return f'<p class="unleak-soft">{escape(found["text"])}</p>'
    cells = "".join(f"<div><dt>{name}</dt><dd>{_number(found[unit], unit)}</dd></div>" for unit, name in _UNITS.items())
    units = f'<dl class="unleak-level">{cells}</dl>'
    one = "the whole schedule" if found["fraction"] == 1 else f"sigma {_number(found['sigma'], 'sigma')}"
    return f"<details><summary>{one}</summary>{units}</details>"


def beside(fixes: Iterable[str]) -> str:
    """Name the fixes that act beside the start."""
    names = [one.partition("=")[0] for one in fixes]
    return f'<p class="unleak-soft">together with {escape(", ".join(names))}</p>' if names else ""


def knobs(own: Iterable[Knob]) -> str:
    """List the arguments of a model's own that change its motion, each with its meaning."""
    rows = "".join(f"<li><code>{escape(one.name)}</code> {escape(one.meaning)}</li>" for one in own)
    return f'<ul class="unleak-knobs">{rows}</ul>' if rows else '<p class="unleak-soft">This model has none.</p>'


def refused(reason: str) -> str:
    """Why there is nothing to show, in place of it."""
    return f'<p class="unleak-refused" role="alert">{escape(reason)}</p>'


def notes(cautions: Iterable[str]) -> str:
    """Show what a person should know of how videos were made, a line each."""
    return "".join(f'<p class="unleak-note" role="status">{escape(text)}</p>' for text in cautions)


def pair(
    plain: Made, fixed: Made, videos: tuple[Path, Path], *, still: bool = False, cautions: Iterable[str] = ()
) -> str:
    """Show both videos side by side, each with its motion, camera and level; the MP4 files are in the text itself.

    still: the video with the fix came out still all the same, so it is not called fixed. cautions: what a person should
    know of how they were made.
    """
    highest = max(*plain.run.motion.per_pair, *fixed.run.motion.per_pair)
    names = ("Plain", "With the fix" if still else "Fixed")
    cards = [
        _card(name, made.run, video, highest) for name, made, video in zip(names, (plain, fixed), videos, strict=True)
    ]
    before, after = plain.run.motion.value, fixed.run.motion.value
    times = f"{after / before:.1f} times the motion of plain. " if before > 0 and not still else ""
    return (
        f'<div class="unleak-pair">{"".join(cards)}</div>{notes(cautions)}'
        f'<p class="unleak-soft"><b class="unleak-times">{times}</b>'
        f"Motion score: mean optical flow per pair of frames, summed, in px; {escape(fixed.run.motion.estimator)}. "
        f"It counts any change: look at the video too.</p>{_measurements(names, plain, fixed)}"
    )


def _measurements(names: tuple[str, str], plain: Made, fixed: Made) -> str:
    """Show a table of every metric that was measured on both videos, folded away."""
    rows = []
    for name in (name for name in plain.values if name in fixed.values):
        one = metrics()[name]
        cells = "".join(f"<td>{'-' if value is None else f'{value:.3g}'}</td>"
                        for value in (plain.values[name], fixed.values[name]))  # fmt: skip
        rows.append(f'<tr title="{escape(one.about)}"><th scope="row">{escape(one.heading)}</th>{cells}</tr>')
    head = "".join(f"<th>{name}</th>" for name in names)
    return (
        '<details class="unleak-measured"><summary>All that was measured</summary>'
        f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></details>"
    )


def attempt(done: Attempt, page: str) -> str:
    """Show what came of several tries, and the page of all of them."""
    said = escape(done.text[:1].upper() + done.text[1:])
    return f'<section class="unleak-verdict"><p class="unleak-first">{said}.</p></section>{framed(page)}'


def framed(page: str) -> str:
    """Put a whole page into a frame that can run its scripts and reach nothing else."""
    return (
        f'<iframe class="unleak-frame" title="Sweep" sandbox="allow-scripts" srcdoc="{escape(page, quote=True)}">'
        "</iframe>"
    )


def diagnosis(done: Diagnosis, folder: Path) -> str:
    """Show the verdict in words, the chart that `folder` holds, and every other cause of stillness."""
    first, *others = done.verdict.sentences
    chart = base64.b64encode((folder / CHART).read_bytes()).decode()
    causes = "".join(
        f'<li class="unleak-{escape(cause["state"])}"><b>{escape(cause["name"])}</b> {_worded(cause["text"])}</li>'
        for cause in sorted(done.about["other_causes"], key=lambda cause: cause["state"] != "suspect")
    )
    return f"""<section class="unleak-verdict"><p class="unleak-first">{_worded(first)}</p>
{"".join(f"<p>{_worded(sentence)}</p>" for sentence in others)}
<img alt="Share of a clip's own motion that comes back, against the start" src="data:image/png;base64,{chart}">
<h3>Other causes of still videos</h3><ul>{causes}</ul></section>"""


def found(done: Tuned, page: str = "") -> str:
    """Show the start that was found for a photo, why, and every preview; `page` shows their videos."""
    rows = []
    for one in done.previews:
        name = ' class="unleak-chosen"' if one is done.chosen else ""
        camera = "not found" if one.run.pan is None else done.target.text(one.run.pan, done.fps)
        cells = f"<td>{done.target.text(one.speed, done.fps)}</td><td>{camera}</td><td>{one.first_frame:.1f} dB</td>"
        rows.append(f'<tr{name}><th scope="row">{escape(str(one.start))}</th>{cells}</tr>')
    reason = escape(done.reason[0].upper() + done.reason[1:])
    return f"""<section class="unleak-verdict"><p class="unleak-first">{reason}.</p>
<table><thead><tr><th>start</th><th>motion</th><th>camera</th><th>first frame</th></tr></thead>
<tbody>{"".join(rows)}</tbody></table>
<p>It is set on the left now, under Motion: animate it. Previews had the noise of the seed, and fewer steps.</p>
</section>{framed(page) if page else ""}"""


def _worded(sentence: str) -> str:
    """Return a sentence as HTML, its commands marked as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(sentence))


def _card(name: str, run: Run, video: Path, highest: float) -> str:
    _, height, width, _ = run.frames.shape
    source = f"data:video/mp4;base64,{base64.b64encode(video.read_bytes()).decode()}"
    heights = [max(0.02, one / highest if highest else 0) for one in run.motion.per_pair]
    bars = "".join(f'<rect x="{k}.1" width=".8" y="{1 - y:.4f}" height="{y:.4f}"/>' for k, y in enumerate(heights))
    pan = "camera not found" if run.pan is None else f"camera {run.pan:.2f} px/frame"
    start = "the whole schedule" if run.start["fraction"] == 1 else f"start {escape(run.start['asked'])}"
    return f"""<figure class="unleak-card unleak-{"plain" if name == "Plain" else "fixed"}">
<video class="unleak-screen" style="aspect-ratio: {width} / {height}" autoplay loop muted playsinline controls
 controlslist="nodownload" aria-label="{name} video" src="{source}"></video>
<figcaption><div class="unleak-asked"><span></span><b>{name}</b> {start}</div>
<div class="unleak-score"><b>{run.motion.value:.1f}</b> motion score <i>{pan}</i></div>
<svg viewBox="0 0 {len(heights)} 1" preserveAspectRatio="none" role="img" aria-label="Motion of each pair of frames">
{bars}</svg>{level(run.start)}</figcaption></figure>"""


def _number(value: float | None, unit: str) -> str:
    if value is None:  # JSON has no infinity
        return "&#8722;&#8734;" if unit == "log_snr" else "&#8734;"
    return f"{value:.4g}".replace("-", "&#8722;")
