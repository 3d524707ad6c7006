"""Lines with intervals over named places as one picture: what a chart needs where no plotting library is."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

__all__ = ["Line", "line_chart"]

_FINE = 2  # drawn at this size and scaled down, for smooth edges
_INK, _FAINT, _GRID, _PAPER = (24, 26, 32), (92, 97, 109), (226, 227, 224), (255, 255, 255)
_LEFT, _RIGHT, _TOP, _BOTTOM, _ROW = 64, 24, 58, 58, 24


@dataclass(frozen=True)
class Line:
    """One line: for each place its value with the ends of its interval, or None where there is none."""

    label: str
    colour: tuple[int, int, int]
    points: Sequence[tuple[float, float, float] | None]
    dashed: bool = False


def line_chart(
    title: str, places: Sequence[str], lines: Sequence[Line], *, note: str = "", width: int = 900, height: int = 460
) -> Image.Image:
    """A chart of `lines` over evenly spaced `places`, the legend below; values from 0 to 1 always fit."""
    legend = _ROW * len(lines) + 16
    size = (width * _FINE, (height + legend) * _FINE)
    picture = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(picture)
    values = [value for line in lines for point in line.points if point for value in point]
    finite = [min(max(value, -2.0), 4.0) for value in values]
    low, high = min([0.0, *finite]), max([1.0, *finite])
    bottom, right = height - _BOTTOM, width - _RIGHT

    def across(place: int) -> float:
        return _LEFT + (right - _LEFT) * (place + 0.5) / max(1, len(places))

    def up(value: float) -> float:
        inside = min(max(value, low), high)
        return bottom - (bottom - _TOP) * (inside - low) / (high - low)

    def text(x: float, y: float, words: str, ink: tuple[int, int, int], points: int, anchor: str) -> None:
        draw.text((x * _FINE, y * _FINE), words, ink, ImageFont.load_default(points * _FINE), anchor=anchor)

    def stroke(points: Sequence[tuple[float, float]], ink: tuple[int, int, int], thick: float) -> None:
        draw.line([(x * _FINE, y * _FINE) for x, y in points], fill=ink, width=round(thick * _FINE))

    text(_LEFT, 16, title, _INK, 17, "lm")
    text(_LEFT, 38, note, _FAINT, 12, "lm")
    step = 0.25 if high - low <= 2 else 0.5
    for k in range(round(low / step), round(high / step) + 1):
        stroke([(_LEFT, up(k * step)), (right, up(k * step))], _FAINT if k == 0 else _GRID, 1)
        text(_LEFT - 8, up(k * step), f"{k * step:g}", _FAINT, 12, "rm")
    for place, name in enumerate(places):
        text(across(place), bottom + 18, name, _FAINT, 12, "mm")
    text(_LEFT, bottom + 40, "more noise", _FAINT, 12, "lm")
    text(right, bottom + 40, "less noise", _FAINT, 12, "rm")
    for row, line in enumerate(lines):
        before: tuple[float, float] | None = None
        shift = 3.0 * (row - (len(lines) - 1) / 2)  # so that intervals do not hide each other
        for place, point in enumerate(line.points):
            if point is None:
                before = None
                continue
            x, (value, least, most) = across(place) + shift, point
            stroke([(x, up(least)), (x, up(most))], line.colour, 1.2)
            here = (x, up(value))
            if before is not None:
                for a, b in _dashes(before, here) if line.dashed else [(before, here)]:
                    stroke([a, b], line.colour, 2)
            draw.ellipse([(c + s) * _FINE for s in (-3.5, 3.5) for c in here], fill=line.colour)
            before = here
        y = height + row * _ROW
        for a, b in _dashes((_LEFT, y), (_LEFT + 40, y)) if line.dashed else [((_LEFT, y), (_LEFT + 40, y))]:
            stroke([a, b], line.colour, 3)
        text(_LEFT + 52, y, line.label, _INK, 13, "lm")
    return picture.resize((width, height + legend), Image.Resampling.LANCZOS)


def _dashes(
    a: tuple[float, float], b: tuple[float, float], *, dash: float = 7.0
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Every second piece of the way from a to b."""
    length = ((b[0] - a[0]) ** 2 + (b[1] - a[1]) ** 2) ** 0.5
    count = max(1, round(length / dash))

    def at(k: int) -> tuple[float, float]:
        share = min(1.0, k / count)
        return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])

    return [(at(k), at(k + 1)) for k in range(0, count, 2)]
