"""The GPU benchmark rehearsed on a CPU: the same code, small networks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments):
    command = [sys.executable, "-m", "benchmarks.gpu", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.slow
def test_every_row_is_measured_and_kept(tmp_path):
    out = tmp_path / "rows.jsonl"
    done = run("--rehearse", "--out", out)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["row"]: row["error"] for row in rows if "error" in row} == {}
    assert all(row["rehearsal"] for row in rows)
    report = run("--report", "--out", out).stdout
    assert "not measured" not in report
    assert len(report.splitlines()) == len(rows) + 2
    assert len(rows) == len({row["row"] for row in rows}) > 10
    again = run("--rehearse", "--out", out)
    assert again.returncode == 0
    assert len(out.read_text().splitlines()) == len(rows)  # what is there is not measured again


@pytest.mark.slow
def test_what_nobody_has_measured_says_so(tmp_path):
    report = run("--report", "--out", tmp_path / "none.jsonl").stdout
    assert "| step svd 512x320 | not measured |  |" in report
