"""The README's table of supported pipelines, from the results of the tests.

    pytest tests/attach/test_matrix.py --write-support      runs every promise, writes tests/attach/support.json
    python benchmarks/support_table.py [--write README.md]  prints the table, or puts it between its marks in a file

Nothing in the table is typed: a row is there because of a seam, a tick because the promise held for that pipeline in
both modes when the results were written, and a reason because the seams refuse it.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from unleak.attach.seams import REFUSED, SEAMS

RESULTS = Path(__file__).parents[1] / "tests" / "attach" / "support.json"
MARKS = ("<!-- support: begin, written by benchmarks/support_table.py -->", "<!-- support: end -->")
PROMISES = ("full start", "level", "initial latents", "repeatable", "removal")
MODES = ("rescale", "truncate")
IMAGE = ("low-pass", "condition noise")


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown. `results`: tiny pipeline -> its class, scheduler, process, and the promises that held."""
    rows = [
        "| pipeline | checked with | plain at full start | level | initial noise | repeatable | removal |"
        " low-pass, condition noise | guidance interval |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    checked = {name: [r for r in results.values() if r["pipeline"] == name] for name in SEAMS}
    for name in sorted(SEAMS, key=lambda name: (not checked[name], name)):
        seam, runs = SEAMS[name], checked[name]
        how = ", ".join(sorted({f"{r['scheduler']} ({r['process']})" for r in runs})) or "read, not run"
        cells = [
            _cell(runs, promise, possible=promise != "initial latents" or seam.layout is not None)
            for promise in PROMISES
        ]
        noise = [_strategy(runs, promise, possible=seam.condition is not None) for promise in IMAGE]
        strategies = [min(noise, key=("no", "-", "yes").index)]
        strategies.append(_strategy(runs, "guidance interval", possible=seam.branches is not None))
        rows.append(f"| {name} | {how} | {' | '.join([*cells, *strategies])} |")
    rows += ["", "Refused, with the reason:", ""]
    rows += [f"- {name}: {reason}." for name, reason in sorted(REFUSED.items())]
    return "\n".join(rows)


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
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    text = table(json.loads(RESULTS.read_text()))
    if arguments.write is None:
        print(text)
        return
    page = arguments.write.read_text(encoding="utf-8")
    begin, end = map(re.escape, MARKS)
    page, found = re.subn(f"({begin}\n).*?({end})", lambda m: f"{m[1]}{text}\n{m[2]}", page, flags=re.DOTALL)
    if not found:
        raise SystemExit(
            f"{arguments.write} has no place for the table: put these two lines where it belongs:\n" + "\n".join(MARKS)
        )
    arguments.write.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
