import json
from importlib.metadata import version

from unleak.zoo.registry import MODELS


def test_doctor_tells_parts_machine_and_models(unleak):
    result = unleak("doctor", "--json")
    told = json.loads(result.out)
    assert (result.status, result.err) == (0, "")
    assert told["parts"]["base"]["torch"] == version("torch")
    assert 0 < told["machine"]["free_memory_gb"] <= told["machine"]["memory_gb"]
    assert [model["name"] for model in told["models"]] == list(MODELS)
    for model in told["models"]:
        assert model["fits"] == (model["needs_gb"] <= told["machine"]["device_gb"])
    for name in [*MODELS, "torch", told["machine"]["device"]]:
        assert name in unleak("doctor").out


def test_a_missing_part_is_said_with_its_remedy(unleak, monkeypatch):
    monkeypatch.setattr("unleak.cli.doctor._PARTS", {"evaluate": ("no-such-package",)})
    assert "evaluate: no-such-package missing (pip install 'unleak[evaluate]')" in unleak("doctor").out
