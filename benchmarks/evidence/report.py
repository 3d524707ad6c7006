"""The tables in Markdown and the plot, from the measured rows."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evidence.measures import summarize
from benchmarks.evidence.scenes import Law

BEGIN, END = "<!-- evidence: written by make benchmark -->", "<!-- /evidence -->"
SHORT = {
    "plain": "plain",
    "guidance 1": "no guidance",
    "start 20, analytic": "start sigma 20, Analytic-Init",
    "start 5, analytic": "start sigma 5, Analytic-Init",
    "start 20, guidance 1": "start sigma 20, no guidance",
    "timenoise: plain": "TimeNoise, plain sampling",
}
"""Methods that the README shows, and their names there."""
DIGITS = {"nearest": 1, "first_frame": 1, "flicker": 2, "score": 0, "seconds": 2}
Row = dict[str, Any]
Place = tuple[int, int]  # scene, noise
Complete = dict[int, set[Place]]  # training seed -> where every method has made a video


def write_report(
    protocol: dict[str, Any], rows: list[Row], tried: dict[str, Any], out: Path, into: Path | None
) -> None:
    """Write OUT/table.md and OUT/evidence.png, from the videos that every method has made.

    into: a repository, whose docs/evidence.md gets both, and whose README.md gets the short table.
    """
    place_of_model = {name: k for names in protocol["models"].values() for k, name in enumerate(names)}
    methods: dict[str, list[Row]] = {}
    made: dict[int, dict[str, set[Place]]] = {}
    for row in rows:
        if row["model"] in place_of_model:
            seed = place_of_model[row["model"]]
            methods.setdefault(row["method"], []).append(row | {"training_seed": seed})
            if not _is_restart(row["method"]):
                made.setdefault(seed, {}).setdefault(row["method"], set()).add(_place(row))
    complete = {seed: set.intersection(*places.values()) for seed, places in sorted(made.items())}
    text = "\n\n".join((table(protocol, methods, complete), knobs(tried), restarts(protocol, methods)))
    (out / "table.md").write_text(text + "\n")
    plot(protocol, methods, complete, out / "evidence.png")
    print(text)
    if into:
        (into / "docs" / "evidence.png").write_bytes((out / "evidence.png").read_bytes())
        picture = "![Motion kept and lost, by method and noise level](evidence.png)"
        _put(into / "docs" / "evidence.md", f"{text}\n\n{picture}")
        _put(into / "README.md", short_table(protocol, methods, complete))


def _put(page: Path, text: str) -> None:
    """Replace what stands between the marks of `page`."""
    old = page.read_text()
    assert BEGIN in old, f"{page} has no {BEGIN}"
    block = f"{BEGIN}\n{text}\n{END}"
    page.write_text(re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: block, old, flags=re.DOTALL))


def short_table(protocol: dict[str, Any], methods: dict[str, list[Row]], complete: Complete) -> str:
    """Return the README's table: a row for each method of `SHORT`."""
    found = summaries(protocol, methods, complete)
    lines = ["| | moves | broken | first frame | time of a video |", "|---|---|---|---|---|"]
    for name, title in SHORT.items():
        r = found[name]
        cells = [
            f"{r['moves']:.0%} {_interval(r['interval'], '.0%')}",
            f"{r['broken']:.0%}",
            f"{r['first_frame']:.1f} dB",
        ]
        lines.append(f"| {title} | {' | '.join(cells)} | {r['seconds'] / found['plain']['seconds']:.2f} of plain's |")
    return "\n".join(lines)


def _place(row: Row) -> Place:
    return row["scene"], row["noise"]


def _is_restart(method: str) -> bool:
    return method.startswith(("restart", "one step"))


def summaries(protocol: dict[str, Any], methods: dict[str, list[Row]], complete: Complete) -> dict[str, Row]:
    kept = {
        name: [row for row in some if _place(row) in complete[row["training_seed"]]]
        for name, some in methods.items()
        if not _is_restart(name)
    }
    law = Law.of(protocol)
    # Real clips drawn twice give the floor of the kernel distance.
    return {name: summarize(some, kept["plain"], kept["real clips"], law) for name, some in kept.items()}


def table(protocol: dict[str, Any], methods: dict[str, list[Row]], complete: Complete) -> str:
    found = summaries(protocol, methods, complete)
    photos = {row["photo"] for row in methods["plain"] if _place(row) in complete[row["training_seed"]]}
    sizes = {
        seed: " clips x ".join(str(len(set(of))) for of in zip(*places, strict=True))
        for seed, places in complete.items()
    }
    each = "; ".join(f"training seed {seed + 1}: {size} noises" for seed, size in sizes.items())
    lines = [
        f"{len(photos)} held-out photos; {each}; guidance {protocol['guidance']} unless said.",
        "",
        "| method | moves | each seed | more | speed | energy | MMD | broken | nearest | frame 0 | flicker | score | s |",  # noqa: E501
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, r in found.items():
        sampled = not name.startswith(("real", "oracle", "plain"))
        cells = [
            name,
            f"{r['moves']:.0%} {_interval(r['interval'], '.0%')}",
            ", ".join(f"{one:.0%}" for one in r["by_seed"]) if len(r["by_seed"]) > 1 else "",
            f"{r['more']:+.0%} {_interval(r['more_interval'], '+.0%')}" if sampled else "",
            f"{r['speed']:.2f}",
            f"{r['energy']:.2f}",
            "" if name == "real clips" else f"{r['mmd']:.0f}",
            f"{r['broken']:.0%}",
            *(f"{r[key]:.{digits}f}" for key, digits in DIGITS.items()),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _interval(bounds: list[float], form: str) -> str:
    low, high = (format(bound, form) for bound in bounds)
    return f"({low} to {high})"


def knobs(tried: dict[str, Any]) -> str:
    lines = ["| knob | tried on the validation photos: energy distance |", "|---|---|"]
    for name, results in tried.items():
        best = min(results, key=lambda value: results[value]["energy"])
        cells = ", ".join(
            f"**{value}: {r['energy']:.2f}**" if value == best else f"{value}: {r['energy']:.2f}"
            for value, r in results.items()
        ).replace('"', "")
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


def recovered(protocol: dict[str, Any], rows: list[Row]) -> list[float]:
    """Each restarted clip's velocity along its own, 1 where all of its motion came back; broken ones got none back."""
    own = Law.of(protocol).velocities
    return [
        0.0
        if row["broken"]
        else float(own[row["noise"] % 2] @ (row["dx"], row["dy"]))
        / float(own[row["noise"] % 2] @ own[row["noise"] % 2])
        for row in rows
    ]


def curves(protocol: dict[str, Any], methods: dict[str, list[Row]], kind: str) -> dict[str, dict[float, list[float]]]:
    """Who -> sigma -> recovered velocities."""
    found: dict[str, dict[float, list[float]]] = {}
    for name, rows in methods.items():
        if match := re.fullmatch(rf"{kind} (\S+): (.*)", name):
            found.setdefault(match[2], {})[float(match[1])] = recovered(protocol, rows)
    return found


def restarts(protocol: dict[str, Any], methods: dict[str, list[Row]]) -> str:
    sigmas = protocol["restart"]["sigmas"]
    lines = []
    for kind, title in (
        ("restart", "restarted, of its own motion"),
        ("one step", "predicted at once, of its own motion"),
    ):
        lines += [f"| {title} | " + " | ".join(f"sigma {s}" for s in sigmas) + " |", "|---" * (len(sigmas) + 1) + "|"]
        for who, by_sigma in curves(protocol, methods, kind).items():
            cells = (f"{np.mean(by_sigma[float(s)]):.2f}" if float(s) in by_sigma else "" for s in sigmas)
            lines.append(f"| {who} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines).strip()


def plot(protocol: dict[str, Any], methods: dict[str, list[Row]], complete: Complete, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    found = summaries(protocol, methods, complete)
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 6.5), width_ratios=(1.25, 1), layout="constrained")
    law = Law.of(protocol)
    still = np.hypot(*law.velocities.T) == 0
    shown = [name for name in found if not name.startswith("real")]
    for place, name in enumerate(reversed(shown)):
        r = found[name]
        colour = (
            "tab:green"
            if name.startswith("oracle")
            else "tab:red"
            if name == "plain"
            else "tab:orange"
            if name.startswith("timenoise")
            else "tab:blue"
            if name.startswith("start")
            else "0.35"
        )
        left.plot(r["interval"], [place, place], color=colour, lw=2, alpha=0.6)
        left.plot(r["moves"], place, "o", color=colour)
        if r["broken"]:
            left.plot(r["broken"], place, "x", color="black", ms=5)
    left.axvline(1 - law.probabilities[still].sum(), color="0.6", ls="--", lw=1)
    left.set_yticks(range(len(shown)), reversed(shown), fontsize=8)
    left.set_xlim(-0.02, 1)
    left.set_xlabel("share of videos that move (dot, 95 %), broken (x); dashed: the law of the data")
    colours = {
        "model": "tab:red",
        "model without its image": "tab:purple",
        "timenoise": "tab:orange",
        "oracle": "tab:green",
    }
    for kind, style in (("restart", "-"), ("one step", ":")):
        for who, by_sigma in curves(protocol, methods, kind).items():
            right.plot(
                list(by_sigma), [np.mean(v) for v in by_sigma.values()], style, color=colours[who], marker="o", ms=3,
                label=f"{who}, {'sampled on' if kind == 'restart' else 'one step'}",
            )  # fmt: skip
    right.set_xscale("log")
    right.set_xlabel("sigma that a moving clip was noised to")
    right.set_ylabel("share of its own motion")
    right.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
