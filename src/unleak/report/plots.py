"""The plots of the pages, drawn by matplotlib: SVG inside a page, in its light or dark colours; or a picture."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from itertools import count
from pathlib import Path
from textwrap import fill
from typing import Any

from unleak.report.pages import trusted

__all__ = ["Line", "Mean", "against_start", "along", "dots", "kept_motion", "means"]

# Stand-ins for the colours of the page, which change with light and dark.
_INK, _SOFT, _LINE, _CARD = "#010203", "#010204", "#010205", "#010206"
_PAGE = {_INK: "var(--ink)", _SOFT: "var(--soft)", _LINE: "var(--line)", _CARD: "var(--card)"}
_PICTURE = {_INK: "#17191f", _SOFT: "#5c616d", _LINE: "#e2e3e0", _CARD: "#ffffff"}
_numbers = count()

Ends = tuple[float | None, float | None]


@dataclass(frozen=True)
class Line:
    """A line over named places: for each its value with the ends of its interval, or None where there is none."""

    label: str
    colour: str
    points: Sequence[tuple[float, float, float] | None]
    dashed: bool = False


@dataclass(frozen=True)
class Mean:
    """A mean with the ends of its interval, None where it has none."""

    label: str
    colour: str
    value: float
    low: float | None
    high: float | None


def against_start(
    fractions: Sequence[float],
    labels: Sequence[str],
    values: Sequence[float | None],
    colours: Sequence[str],
    form: str,
    *,
    joined: bool = True,
) -> Any:
    """Plot a number against the fraction of the noise process, noisiest to the left; each point leads to its video.

    joined: draw a line from point to point, which says nothing where one start has several noises.
    """
    figure, axes = _figure(3.9, 2.4)
    there = [k for k in range(len(fractions)) if values[k] is not None]
    order = sorted(there, key=lambda k: (-fractions[k], -(values[k] or 0)))
    if joined:
        axes.plot([fractions[k] for k in order], [values[k] for k in order], color=_SOFT, lw=1.6, alpha=0.55, zorder=1)
    for k in order:
        point = axes.scatter([fractions[k]], [values[k]], s=75, color=colours[k], edgecolor=_CARD, lw=1.6, zorder=3)
        point.set_urls([f"#start-{k}"])
    least = 10.0 ** (1 - int(form[1]))  # what the labels can tell from 0
    top = max([least, *(values[k] or 0 for k in order)])
    axes.set_ylim(0, top * 1.22)
    span = (max(fractions) - min(fractions)) or 1.0
    axes.set_xlim(max(fractions) + 0.08 * span, min(fractions) - 0.08 * span)
    near = 0.085 * span * 1.16  # labels closer than this would overlap
    for k in _apart([-fractions[k] for k in order], order, near):
        text = format(values[k], form)
        axes.annotate(
            text, (fractions[k], values[k]), (0, 9), textcoords="offset points", ha="center", color=_INK, weight="bold"
        )
    widest = 0.02 * 1.16 * span * max(map(len, labels))
    shown = _apart([-one for one in sorted(fractions, reverse=True)], _by_noise(fractions), max(1.5 * near, widest))
    axes.set_xticks([fractions[k] for k in shown], [labels[k] for k in shown])
    axes.set_xlabel("← more noise at the start \u2003\u2003 less noise →", color=_SOFT)
    return _svg(figure)


def _by_noise(fractions: Sequence[float]) -> list[int]:
    return sorted(range(len(fractions)), key=lambda k: -fractions[k])


def _apart(places: Sequence[float], order: Sequence[int], gap: float) -> list[int]:
    """Return the members of `order` whose `places`, which ascend, are `gap` or more from the one kept before."""
    kept, last = list[int](), float("-inf")
    for place, member in zip(places, order, strict=True):
        if place - last >= gap:
            kept.append(member)
            last = place
    return kept


def means(rows: Sequence[Mean]) -> Any:
    """Plot a row for each case: its mean as a dot, its interval as a line, its value as a number."""
    figure, axes = _figure(2.8, 0.5 + 0.34 * len(rows))
    for place, row in enumerate(rows):
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [place, place], color=row.colour, lw=3, solid_capstyle="round")
        axes.scatter([row.value], [place], s=55, color=row.colour, edgecolor=_CARD, lw=1.4, zorder=3)
        axes.annotate(
            f"{row.value:.3g}",
            (1.02, place),
            xycoords=("axes fraction", "data"),
            va="center",
            color=_INK,
            weight="bold",
        )
    axes.set_yticks(range(len(rows)), [fill(_short(row.label, 44), 22) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    ends = [end for row in rows for end in (row.value, row.low, row.high) if end is not None]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    axes.set_xlim(low, high + 0.06 * ((high - low) or 1.0))
    axes.grid(axis="x", color=_LINE)
    axes.grid(axis="y", visible=False)
    return _svg(figure)


def along(lines: Sequence[tuple[str, str, Sequence[float]]]) -> Any:
    """Plot the motion of each pair of frames, a line (label, colour, values) for each case."""
    figure, axes = _figure(9.4, 2.3)
    for label, colour, values in lines:
        axes.plot(range(1, len(values) + 1), values, color=colour, lw=2, marker="o", ms=3, label=_short(label))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("pair of frames", color=_SOFT)
    axes.xaxis.get_major_locator().set_params(integer=True)
    _legend(axes, columns=3)
    return _svg(figure)


def dots(values: Sequence[float], mean: Mean) -> Any:
    """Plot a number of each video as a dot, and the mean with its interval above them."""
    figure, axes = _figure(4.6, 1.1)
    heights = [0.12 * ((7 * k) % 5 - 2) for k in range(len(values))]  # so that dots do not hide each other
    axes.scatter(values, heights, s=22, color=mean.colour, alpha=0.75, lw=0)
    if mean.low is not None and mean.high is not None:
        axes.plot([mean.low, mean.high], [0.55, 0.55], color=_INK, lw=2.5, solid_capstyle="round")
    axes.scatter([mean.value], [0.55], s=45, color=_INK, zorder=3)
    axes.set_ylim(-0.5, 0.9)
    axes.set_yticks([])
    return _svg(figure)


def kept_motion(places: Sequence[str], lines: Sequence[Line], file: Path | None = None) -> Any:
    """Plot `lines` over evenly spaced `places`, values from 0 to 1 always in view; write a PNG to `file` if given."""
    figure, axes = _figure(9.0, 4.4)
    apart = 0.03 * min(1.0, len(places) / 6)
    for row, line in enumerate(lines):
        shift = apart * (row - (len(lines) - 1) / 2)  # so that intervals do not hide each other
        there = [(place + shift, *point) for place, point in enumerate(line.points) if point is not None]
        if not there:
            continue
        x, y, low, high = (list(column) for column in zip(*there, strict=True))
        axes.plot(x, y, color=line.colour, lw=1.8, ls="--" if line.dashed else "-", marker="o", ms=4, label=line.label)
        axes.vlines(x, low, high, color=line.colour, lw=1.1, alpha=0.7)
    shown = [value for line in lines for point in line.points if point is not None for value in point]
    axes.set_ylim(max(-2.0, min([0.0, *shown])) - 0.03, min(4.0, max([1.0, *shown])) + 0.05)
    axes.set_xticks(range(len(places)), places)
    axes.set_ylabel("share of the motion", color=_SOFT)
    axes.set_xlabel("← more noise at the start \u2003\u2003 less noise →", color=_SOFT)
    _legend(axes, columns=2)
    if file is not None:
        _coloured(figure, _PICTURE)
        figure.savefig(file, dpi=110, bbox_inches="tight", facecolor="white")
        _pyplot().close(figure)
        return None
    return _svg(figure)


def _short(label: str, most: int = 30) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"


def _legend(axes: Any, *, columns: int) -> None:
    below = -0.5 / axes.figure.get_figheight()  # inches below the axes
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, below), ncols=columns, frameon=False, labelcolor=_INK, handlelength=2.6
    )


def _figure(width: float, height: float) -> tuple[Any, Any]:
    """Return a figure of `width` x `height` inches with one pair of axes in the style of the pages."""
    figure = _pyplot().figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))  # labels stand outside; the saved picture is cut to what is drawn
    axes.set_facecolor("none")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.grid(axis="y", color=_LINE)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=9, labelcolor=_SOFT)
    return figure, axes


def _svg(figure: Any) -> Any:
    """Return the figure as SVG for a page: its texts as text, in the page's font and colours."""
    for artist in figure.findobj():
        artist.set_clip_on(False)  # nothing lies outside, and the paths to cut by would need names of their own
        if hasattr(artist, "set_parse_math"):
            artist.set_parse_math(False)  # a $ in a name is a dollar
    out = StringIO()
    number = next(_numbers)
    with _matplotlib().rc_context({"svg.fonttype": "none", "svg.hashsalt": f"unleak {number}"}):
        figure.savefig(
            out, format="svg", bbox_inches="tight", pad_inches=0.05, transparent=True, metadata={"Date": None}
        )
    _pyplot().close(figure)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    # Ids are made the chart's own, and the size is left to the page.
    svg = re.sub(r'\bid="', f'id="plot{number}-', svg)
    svg = re.sub(r'(url\(#|xlink:href="#)(?!start-)', rf"\g<1>plot{number}-", svg)
    head, end, body = svg.partition(">")
    svg = (
        re.sub(r'\b(width|height|xmlns|xmlns:xlink|version)="[^"]*"', "", head).replace("<svg", '<svg role="img"', 1)
        + end
        + body
    )
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    svg = re.sub(r"<style.*?</style>| target=\"_blank\"", "", svg, flags=re.DOTALL)
    for stand_in, colour in _PAGE.items():
        svg = svg.replace(stand_in, colour)
    return trusted(svg)


def _coloured(figure: Any, colours: dict[str, str]) -> None:
    """Put real colours in place of the stand-ins."""
    to_hex = _matplotlib().colors.to_hex
    for artist in figure.findobj():
        for name in ("color", "facecolor", "edgecolor"):
            getter, setter = getattr(artist, f"get_{name}", None), getattr(artist, f"set_{name}", None)
            if getter is None or setter is None:
                continue
            found = getter()
            try:
                value = to_hex(found if isinstance(found, str | tuple) else found[0])
            except (ValueError, TypeError, IndexError):
                continue
            if value in colours:
                setter(colours[value])


def _matplotlib() -> Any:
    try:
        return import_module("matplotlib")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"a page needs {error.name}, which is not installed: pip install 'unleak[evaluate]'", name=error.name
        ) from error


def _pyplot() -> Any:
    matplotlib = _matplotlib()
    if matplotlib.get_backend(auto_select=False) is None:  # a notebook has chosen its own
        matplotlib.use("agg")
    return import_module("matplotlib.pyplot")
