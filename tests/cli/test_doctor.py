import json
from importlib.metadata import version

import pytest
import torch

from unleak.zoo.registry import MODELS


def test_doctor_tells_parts_machine_and_models(unleak):
    result = unleak("doctor", "--json")
    told = json.loads(result.out)
    assert (result.status, result.err) == (0, "")
    assert told["parts"]["base"]["torch"] == version("torch")
    assert 0 < told["machine"]["free_memory_gb"] <= told["machine"]["memory_gb"]
    assert [model["name"] for model in told["models"]] == list(MODELS)
    words = unleak("doctor").out
    for name in [*MODELS, "torch", told["machine"]["device"]]:
        assert name in words


def test_what_doctor_says_of_a_model_is_what_it_says_of_it_alone(unleak):
    rows = {row["name"]: row for row in json.loads(unleak("doctor", "--json").out)["models"]}
    alone = json.loads(unleak("doctor", "--model", "nano", "--json").out)
    assert (rows["nano"]["ways"], rows["nano"]["suggestion"]) == (alone["ways"], alone["suggestion"])
    assert f"nano: here; {alone['ways'][0]['peak_gb']:.3g} GB as it is; fits" in unleak("doctor").out
    assert [one["name"] for one in alone["knobs"]] == ["motion_bucket_id", "fps", "noise_aug_strength"]


def test_every_models_own_motion_arguments_are_listed(unleak):
    assert "motion_bucket_id=: how much motion" in unleak("models", "show", "svd").out
    shown = unleak("generate", "--help-model", "ltx-2")
    assert shown.status == 0
    assert "--set motion_speed=" in shown.out
    assert "--set image_crf=" in shown.out


def test_a_missing_part_is_said_with_its_remedy(unleak, monkeypatch):
    monkeypatch.setattr("unleak.cli.doctor._PARTS", {"evaluate": ("no-such-package",)})
    assert "missing extras: evaluate; to install them: pip install 'unleak[evaluate]'" in unleak("doctor").out


def test_an_estimate_and_the_offload_that_fits(unleak, tiny_folder, monkeypatch):
    """As a machine with an accelerator would see it."""
    machine = {"device": "GPU", "device_gb": 80.0, "memory_gb": 64}
    monkeypatch.setattr("unleak.cli.doctor._machine", lambda: machine)
    monkeypatch.setattr("unleak.zoo.hub.pick_device", lambda device=None: torch.device("cuda"))
    options = ["doctor", "--model", tiny_folder, "--size", "16x16", "--num-frames", 2]
    result = unleak(*options)
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == "tiny: 2 frames of 16x16 in float16"
    assert lines[1].startswith("weights in GB: ")
    assert lines[-1] == "fits GPU with 80 GB: unleak generate ..."
    ways = {" ".join(way["options"]): way["peak_gb"] for way in json.loads(unleak(*options, "--json").out)["ways"]}
    assert list(ways) == ["", "--offload model", "--offload group", "--offload sequential"]
    for way in ("--offload model", "--offload sequential"):
        machine["device_gb"] = ways[way] * (1 + 1e-6)
        assert unleak(*options).out.splitlines()[-1].endswith(f"unleak generate ... {way}")
    machine["device_gb"] = 0.1
    assert "nothing fits GPU with 0.1 GB; give fewer frames or a smaller size" in unleak(*options).out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--size", "64x64"], "are of one model; give --model too"),
        (["--model", "nanoo"], "did you mean nano?"),
        (["--model", "SVD"], "did you mean svd?"),
        (["--model", "wan2.2"], "did you mean wan2.2-i2v or wan2.2-ti2v-5b?"),
        (["--model", "nano", "--size", "20x20"], "takes multiples of "),
        (["--model", "nano", "--dtype", "int8"], "give one of float32"),
    ],
)
def test_an_estimate_that_cannot_be_made(unleak, arguments, reason):
    result = unleak("doctor", *arguments)
    assert (result.status, result.out, result.err.count("\n")) == (2, "", 1)
    assert reason in result.err
