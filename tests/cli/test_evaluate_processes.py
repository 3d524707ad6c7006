"""The metrics of two processes are those of one, and a run that was killed goes on."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.cli.launching import launch
from tests.files import sha
from unleak.data.video import write_video

KILLED = """
import os, signal, sys
from unleak.cli import main
from unleak.study.evaluate import run

measure, left = run.measure_video, [2]
def deadly(*arguments, **options):
    left[0] -= 1
    return measure(*arguments, **options) if left[0] >= 0 else os.kill(os.getpid(), signal.SIGKILL)
run.measure_video = deadly
main(sys.argv[1:])
"""


class Probabilities(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x.mean(dim=[2, 3, 4]) / 9, dim=1)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["accelerate", "torchrun"])
def test_a_killed_run_goes_on_in_two_processes_to_the_numbers_of_one(launcher, unleak, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    for k in range(5):
        frames = np.random.default_rng(k).integers(0, 256, (4, 24, 32, 3), dtype=np.uint8)
        write_video(frames, tmp_path / f"clips/{k}.mp4", fps=8)
    (tmp_path / "clips/bad.mp4").touch()
    torch.jit.save(torch.jit.script(Probabilities()), "c3d.pt")
    network = ["--c3d", "c3d.pt", "--c3d-sha256", sha(tmp_path / "c3d.pt")]
    command = ["evaluate", "--videos", "clips", "--reference", "clips", *network]
    killed = subprocess.run([sys.executable, "-c", KILLED, *command, "--out", "two"], capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    (file,) = (tmp_path / "two").glob("rows-*.jsonl")
    assert len(file.read_text().split()) > 0
    before = file.read_text()
    assert before.count('"motion_score"') == 2
    done = launch(launcher, tmp_path, *command, "--out", "two", "--json")
    assert done.returncode != 0  # one cannot be read
    assert done.stderr.count("error: skipped clips/bad.mp4") == 2  # as a video and as a reference
    assert unleak(*command, "--out", "one").status == 2
    one, two = (json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("one", "two"))
    assert json.loads(done.stdout) == two
    assert two["summary"] == one["summary"]
    assert two["rows"] == one["rows"]
    assert sorted(two["failed"]) == sorted(one["failed"])
    files = list((tmp_path / "two").glob("rows-*.jsonl"))
    assert len(files) == 2
    assert sum(file.read_text().count('"motion_score"') for file in files) == 10  # none was measured twice
    assert all(file.read_text().startswith(before) for file in files if file.name.endswith("-0.jsonl"))
