import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unleak.core.start import Start
from unleak.study.attempt import Attempt, Candidate, _pairs, fix
from unleak.study.sweep import Run
from unleak.study.verdict import STILL, verdict

_BLOCKS = np.random.default_rng(0).integers(0, 256, (16, 16, 3))
PHOTO = Image.fromarray(np.kron(_BLOCKS, np.ones((4, 4, 1))).astype(np.uint8))
LEVEL = {"alpha": 1.0, "noise": 20.0, "process": "VE", "fraction": 0.5, "timestep": 1.0, "sigma": 20.0, "log_snr": -6.0}
LEVEL |= {"edm_sigma": 20.0, "flow_sigma": 0.95, "text": ""}


def moving(speed, *, blur=0.0, noise=0.0):
    """Eight frames of the photo that pans by `speed` px per frame; the later ones blurred or noisy."""
    frames = []
    for k in range(8):
        frame = np.roll(np.asarray(PHOTO).astype(float), round(speed * k), axis=1)
        if blur:
            frame = frame + blur * k / 7 * (frame.mean((0, 1)) - frame)
        frame += np.random.default_rng(k).normal(0, 1, frame.shape) * noise * k / 7
        frames.append(frame.clip(0, 255).astype(np.uint8))
    return np.stack(frames)


def candidate(frames, *, start="sigma=20", seed=0, photo=PHOTO):
    run = Run.measured({"asked": start, **LEVEL}, None, frames)
    return Candidate(Start.parse(start), seed, run, verdict(frames, photo, fps=8, motion=run.motion), 1.0)


@pytest.fixture(scope="module")
def plain():
    return candidate(moving(0), start="1.0T")


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (moving(2), None),
        (moving(0), "stands still"),
        (moving(2, blur=0.9), "blurs"),
        (moving(2, noise=120), "dissolves"),
        (moving(2)[:, ::-1].copy(), "leaves the photo"),
    ],
)
def test_what_is_not_worth_keeping_is_rejected_for_a_reason(plain, frames, reason):
    assert candidate(frames).rejected(plain) == reason


def test_the_one_that_moves_most_of_those_worth_keeping_is_the_best(plain, tmp_path):
    good, better = candidate(moving(1), seed=1), candidate(moving(3), seed=2)
    found = Attempt(plain, (good, candidate(moving(6, noise=120)), better), fps=8.0)
    assert found.found
    assert found.best is better
    assert found.text == "moved, which plain did not, sharp, 4 s, seed 2, start sigma=20"
    beside = Attempt(good, (better,), fps=8.0)
    assert beside.moved == pytest.approx(better.run.motion.value / good.run.motion.value)
    assert beside.text == f"moved {beside.moved:.1f}x plain, sharp, 2 s, seed 2, start sigma=20"
    page = found.save(tmp_path / "try")
    record = json.loads((tmp_path / "try/try.json").read_text())
    assert sorted(path.name for path in page.parent.iterdir()) == record["files"]
    assert [run["rejected"] for run in record["runs"]] == [None, None, "dissolves", None]
    assert page.read_text(encoding="utf-8").count("<video ") == 4


def test_where_nothing_moves_that_is_said(plain):
    found = Attempt(plain, (candidate(moving(0)), candidate(moving(2, blur=0.9))), fps=8.0)
    assert not found.found
    assert found.text.startswith("none of 2 videos is worth keeping (blurs, stands still)")


def test_a_still_video_is_told_from_one_that_moves():
    assert verdict(moving(0), PHOTO, fps=8).speed < STILL < verdict(moving(1), PHOTO, fps=8).speed


def test_every_start_is_tried_early_and_the_first_with_most_seeds():
    starts = [Start.sigma(20), Start.sigma(5)]
    pairs = [(start.value, seed) for start, seed in _pairs(starts, 6, 7)]
    assert pairs == [(20, 7), (20, 8), (5, 7), (20, 9), (5, 8), (20, 10)]
    assert len(list(_pairs(starts[:1], 4, 0))) == 4


def test_a_pipeline_is_fixed_and_left_as_it_was_found():
    import unleak

    pipe = unleak.load("nano", device="cpu")
    before, photo = type(pipe), Image.open(Path(__file__).parents[2] / "examples/photo.jpg")
    size = {"height": 64, "width": 64, "num_frames": 4, "num_inference_steps": 2, "noise_aug_strength": 0.0}
    found = fix(pipe, image=photo, budget=2, seed=3, **size)
    assert [(str(one.start), one.seed) for one in found.candidates] == [("sigma=20", 3), ("sigma=20", 4)]
    assert found.frames.shape == (4, 64, 64, 3)
    assert type(pipe) is before
