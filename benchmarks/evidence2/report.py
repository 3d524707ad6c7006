"""The README's six rows, docs/evidence.md with everything, and the curve of fidelity against motion."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evidence2.videos import summarize

BEGIN, END = "<!-- evidence: written by make benchmark -->", "<!-- /evidence -->"
CURVE = "evidence-curve.png"
Row = dict[str, Any]


def write(protocol: dict[str, Any], rows: list[Row], out: Path, *, into: Path | None = None) -> None:
    """Write OUT/evidence.md, OUT/readme.md and the curve; with `into` (a repository) its README.md and docs too."""
    methods: dict[str, list[Row]] = {}
    for row in rows:
        methods.setdefault(row["method"], []).append(row)
    found = {name: summarize(some) for name, some in methods.items()}
    short, whole = readme(protocol, found), page(protocol, found)
    (out / "readme.md").write_text(short + "\n")
    (out / "evidence.md").write_text(whole + "\n")
    plot(protocol, found, out / CURVE)
    print(short)
    if into is not None:
        text = (into / "README.md").read_text()
        assert BEGIN in text, f"README.md has no {BEGIN}"
        block = f"{BEGIN}\n{short}\n{END}"
        text = re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: block, text, flags=re.DOTALL)
        (into / "README.md").write_text(text)
        (into / "docs/evidence.md").write_text(whole + "\n")
        (into / "docs" / CURVE).write_bytes((out / CURVE).read_bytes())


def readme(protocol: dict[str, Any], found: dict[str, Row]) -> str:
    """Six rows, four columns."""
    rows = [name for name in protocol["readme"] if name in found]
    plain = found["plain"]["seconds"]["value"] if "plain" in found else 1.0
    lines = ["| method | moves | broken | first frame | cost |", "|---|---|---|---|---|"]
    for name in rows:
        one = found[name]
        cost = one["seconds"]["value"] / plain if plain else 1.0
        lines.append(
            f"| {name} | {_share(one['moves'])} | {one['broken']['value']:.0%} | {one['first_frame']['value']:.1f} dB"
            f" | {cost:.1f}x |"
        )
    return "\n".join(lines)


def page(protocol: dict[str, Any], found: dict[str, Row]) -> str:
    """docs/evidence.md."""
    sizes = {name: one["videos"] for name, one in found.items() if not name.startswith("curve")}
    seeds = max((len(one["moves"]["each"]) for one in found.values()), default=0)
    lines = [
        "# Evidence",
        "",
        "Written by `python -m benchmarks.evidence2 report --write`. The protocol",
        "(`benchmarks/evidence2/protocol.yaml`) was written before the test photos were looked at.",
        "",
        f"{max(sizes.values(), default=0)} videos at most for each method, from {seeds} training"
        f" {'seed' if seeds == 1 else 'seeds'}.",
        "",
        "- *moves*: the video is not broken, and the edge of the picture moves by",
        f"  {protocol['moves']:.1%} of its side per frame or more.",
        "- *broken*: more than a third of its pairs of frames fit no camera motion, or its last frame is far",
        "  from every clip that the photo allows.",
        "- *fidelity*: PSNR against the nearest clip that the photo allows.",
        "- *sharpness*: last frame against the first. *s*: processor time of a video.",
        "- Intervals are 95 %, bootstrapped over photos.",
        "",
        "A lower start also flattens the prior: the oracle, which leaks nothing, moves more from a lower start too."
        " Leakage is what plain loses beyond the oracle's own row.",
        "",
        "| method | moves | each seed | broken | first frame, dB | fidelity, dB | sharpness | s | videos |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in found.items():
        if name.startswith("curve"):
            continue
        lines.append(
            f"| {name} | {_share(one['moves'])} | {', '.join(f'{x:.0%}' for x in one['moves']['each'])}"
            f" | {_share(one['broken'])} | {one['first_frame']['value']:.1f} | {one['fidelity']['value']:.1f}"
            f" | {one['sharpness']['value']:.2f} | {one['seconds']['value']:.1f} | {one['videos']} |"
        )
    lines += ["", f"![Fidelity against motion, a line for each method]({CURVE})", ""]
    lines += ["A method is better where its line lies above, not where it moves more.", ""]
    lines += ["| line | level | moves | fidelity, dB | videos |", "|---|---|---|---|---|"]
    for line, points in protocol["curve"].items():
        for place, what in enumerate(points):
            if one := found.get(f"curve {line} {place}"):
                level = ", ".join(f"{key} {value}" for key, value in what.items() if key != "model") or "plain"
                lines.append(
                    f"| {line} | {level} | {_share(one['moves'])} | {one['fidelity']['value']:.1f} | {one['videos']} |"
                )
    return "\n".join(lines)


def _share(mean: Row) -> str:
    text = f"{mean['value']:.0%}"
    return f"{text} ({mean['low']:.0%} to {mean['high']:.0%})" if np.isfinite(mean["low"]) else text


def plot(protocol: dict[str, Any], found: dict[str, Row], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for line, points in protocol["curve"].items():
        there = [one for place in range(len(points)) if (one := found.get(f"curve {line} {place}"))]
        x, y = ([100 * one["moves"]["value"] for one in there], [one["fidelity"]["value"] for one in there])
        axes.plot(x, y, marker="o", label=line)
    for name, marker in (("oracle", "*"), ("real clips", "P"), ("try", "D")):
        if one := found.get(name):
            axes.scatter([100 * one["moves"]["value"]], [one["fidelity"]["value"]], marker=marker, s=90, label=name)
    axes.set_xlabel("share of videos that move, %")
    axes.set_ylabel("fidelity: PSNR against the nearest clip the photo allows, dB")
    axes.set_xlim(-2, 102)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
