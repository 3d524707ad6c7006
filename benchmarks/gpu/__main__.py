"""Everything about speed and memory that only a GPU can tell, in one command of about 25 minutes.

    python -m benchmarks.gpu [--out benchmarks/results/gpu.jsonl] [--minutes 25] [--only step,train]
    python -m benchmarks.gpu --rehearse --out FILE    the same code on a CPU, with small networks: about a minute
    python -m benchmarks.gpu --report                 the table of what has been measured

Networks have random weights. A row is written as soon as it is measured, so a killed run keeps its rows and a second
one goes on after them. A row that fails says why and does not stop the others. Times are of the wall, medians over
rounds in which the ways of computing the same take turns; memory is what the allocator held at its peak.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.rows import ROWS, Setup

RESULTS = Path(__file__).parents[1] / "results/gpu.jsonl"


def kept(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; a last line that a killed run left half-written is not one."""
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def measure(setup: Setup, path: Path, *, only: tuple[str, ...], minutes: float) -> Iterator[dict[str, Any]]:
    """Measure the rows that are not in the file yet, until the time is over."""
    end, there = time.monotonic() + 60 * minutes, {row["row"] for row in kept(path) if "error" not in row}
    for name, run in ROWS.items():
        if name in there or (only and name.split()[0] not in only):
            continue
        if time.monotonic() > end:
            return
        began = time.monotonic()
        try:
            found = run(setup)
        except (RuntimeError, ValueError, ImportError, NotImplementedError) as error:
            found = {"error": " ".join(str(error).split())[:300] or type(error).__name__}
        setup.forget()
        yield {"row": name, **found, "took": round(time.monotonic() - began, 1), **setup.about}


def table(rows: list[dict[str, Any]]) -> str:
    """The report: a line for every row there is, measured or not."""
    known = {row["row"]: row for row in rows}
    lines = ["| row | measured | on |", "|---|---|---|"]
    for name in ROWS:
        row = known.get(name, {})
        values = {
            key: value for key, value in row.items() if key not in ("row", "took", "device", "torch", "rehearsal")
        }
        told = ", ".join(f"{key} {value}" for key, value in values.items()) or "not measured"
        lines.append(f"| {name} | {told} | {row.get('device', '')}{' (rehearsal)' if row.get('rehearsal') else ''} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--only", default="", help="First words of rows, with commas: matmul, step, memory, ...")
    parser.add_argument("--rehearse", action="store_true", help="On the CPU, with small networks.")
    parser.add_argument("--report", action="store_true", help="Print the table and measure nothing.")
    given = parser.parse_args()
    if not given.report:
        if not given.rehearse and not torch.cuda.is_available():
            raise SystemExit("no CUDA device here; --rehearse runs the same code on the CPU, --report shows the table")
        setup = Setup.of("cpu" if given.rehearse else "cuda")
        only = tuple(word for word in given.only.split(",") if word)
        given.out.parent.mkdir(parents=True, exist_ok=True)
        for row in measure(setup, given.out, only=only, minutes=given.minutes):
            with given.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)
    print(table(kept(given.out)))


if __name__ == "__main__":
    main()
