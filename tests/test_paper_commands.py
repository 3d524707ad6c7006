"""Every command of docs/from-the-paper.md resolves to the settings that were published."""

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from unleak.cli import main

ROOT = Path(__file__).parents[1]
ROWS = dict(re.findall(r"^\| (.+?) \| `(unleak .+)` \|$", (ROOT / "docs/from-the-paper.md").read_text(), re.MULTILINE))

LVDM = {"num_inference_steps": 50, "num_frames": 16, "eta": 1.0, "fps": 24}
SIZE_512, SIZE_1024 = {"height": 320, "width": 512}, {"height": 576, "width": 1024}
DYNAMICRAFTER = LVDM | {"guidance_scale": 7.5, "guidance_rescale": 0.7}
VIDEOCRAFTER = LVDM | SIZE_512 | {"guidance_scale": 12.0}
SVD = {"num_inference_steps": 25, "num_frames": 16, "motion_bucket_id": 20, "noise_aug_strength": 0.002}
SVD |= {"min_guidance_scale": 1.0, "max_guidance_scale": 3.0}

VIDEOS = {
    "DynamiCrafter `inference_512.sh`": (DYNAMICRAFTER | SIZE_512, {"timestep": 940}, "analytic", 123),
    "DynamiCrafter `inference_CIL_512.sh`": (DYNAMICRAFTER | SIZE_512, {"timestep": 1000}, "analytic", 123),
    "DynamiCrafter `inference_CIL_1024.sh`": (DYNAMICRAFTER | SIZE_1024, {"timestep": 1000}, "analytic", 123),
    "SVD `inference.sh`": (SVD | SIZE_1024 | {"fps": 3}, {"sigma": 100}, "analytic", 42),
    "SVD `inference_CIL_512.sh`": (SVD | SIZE_512 | {"fps": 5}, {"sigma": 100}, "analytic", 42),
    "VideoCrafter `inference_512.sh`": (VIDEOCRAFTER, {"timestep": 940}, "analytic", 123),
    "VideoCrafter `inference_CIL_512.sh`": (VIDEOCRAFTER, {"timestep": 940}, "analytic", 123),
    "animate-anything `inference.sh`": (
        {"num_inference_steps": 50, "num_frames": 16, "guidance_scale": 9.0, "motion_strength": 5.0},
        {"timestep": 900},
        "standard",
        0,
    ),
    "PIA, M = 900": ({"num_frames": 16}, {"timestep": 900}, "standard", 0),
}
TIMENOISE = {"a": 5.0, "beta_m": 100.0}
TRAINING = {
    "DynamiCrafter `train.sh`": (TIMENOISE | {"mu_max": 1.0}, {"lr": 1e-5, "steps": 20000}),
    "SVD `train.sh`": ({"beta_m": 15.0, "a": 5.0, "mu_max": 1.0}, {"lr": 3e-5, "steps": 20000}),
    "VideoCrafter `train.sh`": (TIMENOISE | {"mu_max": 4.0}, {"lr": 1e-5, "steps": 20000}),
    **{f"the effect of beta_m: {beta}": (TIMENOISE | {"beta_m": beta}, {}) for beta in (25, 100, 700)},
    **{f"the effect of a: {a}": (TIMENOISE | {"a": a}, {}) for a in (5.0, 1.0, 0.1)},
}


@pytest.fixture
def resolved(tmp_path, monkeypatch, capfd):
    """What the command of a row resolves to; nothing may be downloaded for it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "clips").mkdir()
    Image.effect_noise((64, 40), 90).convert("RGB").save(tmp_path / "photos/1.png")

    def run(row):
        command = shlex.split(ROWS[row])
        status = 2 if command[1] == "train" else 0  # the model to train and its clips are not on this machine
        assert main([*command[1:], "--dry-run", "--json"]) == status, capfd.readouterr().err
        assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "photos"]
        return json.loads(capfd.readouterr().out)

    return run


def part_of(expected, values):
    return {name: values.get(name) for name in expected}


def test_every_row_is_compared():
    assert set(ROWS) == {*VIDEOS, *TRAINING, "the effect of M"}


@pytest.mark.parametrize("row", VIDEOS)
def test_a_video_command_has_the_published_settings(resolved, row):
    arguments, level, init, seed = VIDEOS[row]
    made = resolved(row)
    settings = made["settings"]
    assert part_of(arguments, settings["arguments"]) == arguments
    assert part_of(level, made["level"]) == pytest.approx(level, rel=1e-3)
    assert (settings["init"], settings["seed"]) == (init, seed)
    if made["model"]["family"] in ("dynamicrafter", "videocrafter1"):
        assert settings["fps"] == 8  # as saved; 24 is what the network is told
    if init == "analytic":
        width = settings["arguments"]["width"]
        moments = {**made["model"]["moments_at"], "": made["model"]["moments"]}
        assert f"initial_noise_{width}.pt" in moments.get(f"{width}x{arguments['height']}", moments[""])


def test_the_sweep_has_the_published_starts(resolved):
    starts = resolved("the effect of M")["starts"]
    assert [round(level["timestep"]) for level in starts.values()] == [1000, 940, 900, 860, 820]


@pytest.mark.parametrize("row", TRAINING)
def test_a_training_command_has_the_published_settings(resolved, row):
    condition, others = TRAINING[row]
    made = resolved(row)["recipe"]
    assert part_of(condition, made["condition"]) == condition
    assert part_of(others, made) == others
