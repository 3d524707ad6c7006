"""Runs over several processes, and runs that are killed."""

import json
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from tests.train.runs import ENVIRONMENT, TWO, assert_close, assert_same, files, launch, state
from unleak.data.video import read_video
from unleak.train import checkpoint
from unleak.train.config import dump_recipe
from unleak.train.trainer import train

pytestmark = pytest.mark.slow

LIMITED = """
import resource, sys
from unleak.train.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
sys.exit(main())
"""
LATE = """
import ctypes, sys, time
import torch, torch.distributed as dist
from unleak.train.__main__ import main

tensors = torch.ones(1), [torch.zeros(1), torch.zeros(1)]
python = ctypes.PyDLL(None)
destroy = dist.destroy_process_group

def destroy_late(group=None):
    of_all = dist.group.WORLD
    destroy(group)
    sys.setswitchinterval(3600)  # who waits for Python's lock gets it when it is given away, not before
    time.sleep(0.2 * of_all.rank())
    of_all.allgather([tensors[1]], [tensors[0]])
    python.usleep(500_000)  # by now gloo's thread has gathered, and waits for the lock to let go of the tensors

dist.destroy_process_group = destroy_late
sys.exit(main())
"""


def fails_on_a_full_disk(recipe, **changes):
    """Two processes that have no room for their checkpoint end with a line; the earlier one is all there is."""
    path = recipe.output.with_suffix(".yaml")
    path.write_text(dump_recipe(recipe.model_copy(update=changes)))
    program = path.with_suffix(".py")
    program.write_text(LIMITED)
    command = [sys.executable, *TWO, str(program), str(path)]
    ran = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=900)
    assert ran.returncode != 0
    line = f"{recipe.output}/checkpoints/step-{changes['steps']:08d}: File too large"
    assert 1 <= ran.stderr.count(line) <= 2  # the launcher may end one before it has spoken
    assert "unleak/train" not in ran.stderr  # no traceback of ours
    assert [p.name for p in (recipe.output / "checkpoints").iterdir()] == ["step-00000001"]


def test_two_processes_compute_what_one_does(recipe, tmp_path):
    alone = recipe(output=str(tmp_path / "alone"), steps=2)
    train(alone)
    pair = alone.model_copy(update={"output": tmp_path / "pair"})
    launch(pair, processes=2)
    assert_close(state(alone), state(pair))


def test_the_end_does_not_wait_for_a_thread_that_waits_for_it(recipe, tmp_path):
    """The group ends with what refers to it last: of its reducer's end Python's lock is kept, and gloo's threads are
    waited for."""
    ends = recipe(output=str(tmp_path / "ends"), steps=1)
    path, program = tmp_path / "ends.yaml", tmp_path / "late.py"
    path.write_text(dump_recipe(ends))
    program.write_text(LATE)
    command = [sys.executable, *TWO, str(program), str(path)]
    ran = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    try:
        _, said = ran.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        ran.terminate()  # the launcher ends its processes then, as it could not if it were killed
        _, said = ran.communicate(timeout=60)
    assert ran.returncode == 0, said


def test_weights_in_parts_by_two_then_one_then_two(recipe, photos, tmp_path):
    watched = {"photos": str(photos), "every": 1, "most": 1, "steps": 2, "start": "sigma=100"}
    alone = recipe(output=str(tmp_path / "alone"), steps=4, checkpoint_every=100, validation=watched)
    train(alone)
    parts = alone.model_copy(update={"output": tmp_path / "parts", "sharding": "fsdp"})
    launch(parts, processes=2, steps=1, validation=None)
    first = checkpoint.latest(parts.output / "checkpoints")
    assert len(files(first)) == 2
    fails_on_a_full_disk(parts, steps=2, validation=None)
    train(parts.model_copy(update={"steps": 2, "validation": None}))  # one process, whole weights
    assert len(files(state(parts).path)) == 1
    launch(parts, processes=2)
    last = state(parts)
    for kind in ("model", "ema"):
        got, whole = getattr(last, kind), getattr(state(alone), kind)
        assert got.keys() == whole.keys()
        apart = torch.cat([(got[name] - tensor).abs().flatten() for name, tensor in whole.items()])
        assert apart.median() < 1e-6  # a step apart would be lr, 1e-3
    told = [[json.loads(line)["loss"] for line in (run.output / "log.jsonl").open()] for run in (alone, parts)]
    assert told[1] == pytest.approx(told[0], rel=1e-5)
    assert (parts.output / "pipeline" / "model_index.json").exists()
    videos = sorted(path.relative_to(parts.output) for path in parts.output.glob("validation/*/*.mp4"))
    assert len(videos) == 4  # of one step, and of the next
    seen = [[read_video(run.output / path).frames for path in videos] for run in (alone, parts)]
    apart = [np.abs(a.astype(float) - b).mean() for a, b in zip(*seen, strict=True)]
    assert max(apart) < 1 < 5 < np.abs(seen[0][0].astype(float) - seen[0][2]).mean()  # what a step changes


def test_adapters_in_parts_beside_weights_of_half_precision(recipe, tmp_path):
    half = {"mixed_precision": "bf16", "frozen_dtype": "bf16"}
    alone = recipe(output=str(tmp_path / "alone"), steps=1, trainable="lora", **half)
    train(alone)
    parts = alone.model_copy(update={"output": tmp_path / "parts", "sharding": "fsdp"})
    launch(parts, processes=2)
    losses = [json.loads((run.output / "log.jsonl").read_text())["loss"] for run in (alone, parts)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
    assert (parts.output / "lora" / "pytorch_lora_weights.safetensors").exists()


def test_killed_at_random_steps(recipe, tmp_path):
    straight = recipe(output=str(tmp_path / "straight"), steps=8, checkpoint_every=2)
    train(straight)
    killed = straight.model_copy(update={"output": tmp_path / "killed"})
    path, log = tmp_path / "killed.yaml", killed.output / "log.jsonl"
    path.write_text(dump_recipe(killed))
    for step in sorted(random.Random(0).sample(range(1, 8), 2)):
        run = subprocess.Popen(
            [sys.executable, "-m", "unleak.train", str(path)], env=ENVIRONMENT, stderr=subprocess.DEVNULL
        )
        while run.poll() is None and (log.read_text().count("\n") if log.exists() else 0) < step:
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
        run.wait()
    train(killed)
    assert_same(state(killed), state(straight))
