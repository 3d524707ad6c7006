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
    known = [spec.name for spec in MODELS.values() if spec.memory_gb is not None]
    assert [model["name"] for model in told["models"]] == known
    for model in told["models"]:
        assert model["fits"] == (model["needs_gb"] <= told["machine"]["device_gb"])
    for name in [*known, "torch", told["machine"]["device"]]:
        assert name in unleak("doctor").out


def test_a_missing_part_is_said_with_its_remedy(unleak, monkeypatch):
    monkeypatch.setattr("unleak.cli.doctor._PARTS", {"evaluate": ("no-such-package",)})
    assert "evaluate: no-such-package missing (pip install 'unleak[evaluate]')" in unleak("doctor").out


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
        (["--model", "nano", "--size", "20x20"], "takes multiples of 32"),
        (["--model", "nano", "--dtype", "int8"], "give one of float32"),
    ],
)
def test_an_estimate_that_cannot_be_made(unleak, arguments, reason):
    result = unleak("doctor", *arguments)
    assert (result.status, result.out, result.err.count("\n")) == (2, "", 1)
    assert reason in result.err
