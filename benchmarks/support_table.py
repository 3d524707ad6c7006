"""The tables of supported pipelines in docs/pipelines.md, from the results of the tests.

    WRITE_SUPPORT=1 pytest tests/attach                          runs every promise, adds to tests/attach/support.json
    python benchmarks/support_table.py                           prints both tables
    python benchmarks/support_table.py --write docs/pipelines.md                   puts each between its marks there

Nothing in the table is typed: a row is there because of a seam, a tick because the promise held for that pipeline in
both modes when the results were written, and a reason because the seams refuse it.
"""

import argparse
import importlib.util
import json
import pkgutil
import re
from pathlib import Path
from typing import Any

import diffusers

import unleak.families
from unleak.attach.plan import Strategy
from unleak.attach.seams import REFUSED, SEAMS
from unleak.attach.strategies import (
    Compress,
    ConditionNoise,
    GuidanceInterval,
    LowPass,
    MotionAmplitude,
    ReferenceBias,
)

RESULTS = Path(__file__).parents[1] / "tests" / "attach" / "support.json"
MARKS = ("<!-- support: begin, written by benchmarks/support_table.py -->", "<!-- support: end -->")
SHORT = ("<!-- support in short: begin, written by benchmarks/support_table.py -->", "<!-- support in short: end -->")
PROMISES = ("full start", "level", "initial latents", "repeatable", "removal")
MODES = ("rescale", "truncate")
STRATEGIES: dict[str, Strategy] = {
    "compress": Compress(),
    "low-pass": LowPass(0.5),
    "condition noise": ConditionNoise(0.1),
    "motion amplitude": MotionAmplitude(),
    "reference bias": ReferenceBias(),
    "guidance interval": GuidanceInterval(high="0.9T"),
}
"""The fixes of the table; each says itself whether it fits a class of pipelines."""
WORKS = (None, "start", "initial noise", None, None, *STRATEGIES)
"""What a `yes` in each column of the table lets people do; None: a promise about it."""
MODULAR = "ModularPipeline"
"""The end of the names of modular pipelines, which docs/pipelines.md has a section about."""
NOT_RUN = "a start, by its code; not run"


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown. `results`: tiny pipeline -> its class, scheduler, process, and the promises that held."""
    rows = [
        "| pipeline | checked with | plain at full start | level | initial noise | repeatable | removal |"
        f" {' | '.join(STRATEGIES)} |",
        f"|---|---|---|---|---|---|---|{'---|' * len(STRATEGIES)}",
    ]
    checked = {name: list[dict[str, Any]]() for name in SEAMS if not name.endswith(MODULAR)}
    for result in results.values():  # of unleak's own pipelines too, which carry their seams
        checked.setdefault(result["pipeline"], []).append(result)
    for name, runs in sorted(checked.items(), key=lambda item: (not item[1], item[0])):
        seam = SEAMS.get(name)
        how = ", ".join(sorted({f"{r['scheduler']} ({r['process']})" for r in runs})) or "read, not run"
        cells = [
            _cell(runs, promise, possible=promise != "initial latents" or seam is None or seam.layout is not None)
            for promise in PROMISES
        ]
        strategies = [_strategy(runs, fix, possible=_fits(one, name)) for fix, one in STRATEGIES.items()]
        rows.append(f"| {name} | {how} | {' | '.join([*cells, *strategies])} |")
    rows += ["", "Refused, with the reason:", ""]
    rows += [f"- {name}: {reason}." for name, reason in _refused()]
    return "\n".join(rows)


def short_table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: the pipelines by what works with them, in a row for each combination."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for row in table(results).partition("\n\n")[0].splitlines()[2:]:
        name, how, *cells = row.strip("| ").split(" | ")
        if "**fails**" in cells:
            works: tuple[str, ...] = ("**not every test holds**",)
        elif how.startswith("read"):
            works = (NOT_RUN,)
        else:
            works = tuple(what for what, cell in zip(WORKS, cells, strict=True) if what and cell == "yes")
        groups.setdefault(works, []).append(name.removesuffix("Pipeline").replace("ImageToVideo", "I2V"))
    rows = ["| what works | pipelines |", "|---|---|"]
    for works, names in sorted(groups.items(), key=lambda group: (group[0] == (NOT_RUN,), -len(group[0]), group[0])):
        rows.append(f"| {', '.join(works)} | {', '.join(names)} |")
    checked = "Each class itself was run, tiny, with random weights, on the CPU, in both modes"
    return "\n".join([*rows, "", f"{checked}; {len(_refused())} others are refused, each with its reason."])


def _refused() -> list[tuple[str, str]]:
    """The ordinary pipelines that are refused, with the reason of each."""
    return sorted((name, reason) for name, reason in REFUSED.items() if not name.endswith(MODULAR))


def _fits(strategy: Strategy, name: str) -> bool:
    pipeline = getattr(diffusers, name, None) or _own(name)
    try:
        strategy.fits(pipeline, SEAMS.get(name) or pipeline.unleak_seam)
    except ValueError:
        return False
    return True


def _own(name: str) -> Any:
    """The pipeline class of this name among those of unleak's own families."""
    for family in pkgutil.iter_modules(unleak.families.__path__):
        if family.ispkg and importlib.util.find_spec(f"unleak.families.{family.name}.pipeline"):
            module = importlib.import_module(f"unleak.families.{family.name}.pipeline")
            if hasattr(module, name):
                return getattr(module, name)
    raise LookupError(name)


def _cell(runs: list[dict[str, Any]], promise: str, *, possible: bool) -> str:
    if not possible:
        return "no"
    if not runs:
        return "-"
    held = [{mode for mode in MODES if f"{promise}, {mode}" in run["held"]} for run in runs]
    return "yes" if all(len(modes) == len(MODES) for modes in held) else "**fails**"


def _strategy(runs: list[dict[str, Any]], promise: str, *, possible: bool) -> str:
    if not possible:
        return "no"
    return "yes" if any(promise in run["held"] for run in runs) else "-"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", type=Path, action="append", default=[])
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text())
    tables = {MARKS: table(results), SHORT: short_table(results)}
    if not arguments.write:
        print("\n\n".join(tables.values()))
    for path in arguments.write:
        path.write_text(_written(path, tables), encoding="utf-8")


def _written(path: Path, tables: dict[tuple[str, str], str]) -> str:
    page, places = path.read_text(encoding="utf-8"), 0
    for (begin, end), text in tables.items():
        between = f"({re.escape(begin)}\n).*?({re.escape(end)})"
        page, found = re.subn(between, lambda m, text=text: f"{m[1]}{text}\n{m[2]}", page, flags=re.DOTALL)
        places += found
    if not places:
        marks = "\n\nor\n\n".join("\n".join(pair) for pair in tables)
        raise SystemExit(f"{path} has no place for a table: put two of these lines where it belongs:\n\n{marks}")
    return page


if __name__ == "__main__":
    main()
