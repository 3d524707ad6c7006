"""Configurations of models: what no model has is one line with the file's name, before anything is built."""

import inspect
import json
import shutil
import time

import diffusers
import pytest

from unleak.zoo.configuration import check_configuration
from unleak.zoo.hub import load
from unleak.zoo.source import Source

ABSURD = [
    ("unet/config.json", "layers_per_block", 100_000, "layers_per_block should be a whole number from 0 to 512"),
    ("unet/config.json", "block_out_channels", [2**40], "block_out_channels should be a whole number from 1 to"),
    ("unet/config.json", "in_channels", 8.5, "in_channels should be a whole number"),
    ("vae/config.json", "scaling_factor", 0, "scaling_factor should be a number from 1e-08 to 1e[+]08, given 0"),
    ("scheduler/scheduler_config.json", "sigma_max", "700", "sigma_max should be a number from .*, given '700'"),
    ("scheduler/scheduler_config.json", "num_train_timesteps", 3_000_000, "num_train_timesteps should be a whole"),
    ("scheduler/scheduler_config.json", "num_train_timesteps", True, "num_train_timesteps should be a whole"),
    ("unet/config.json", "other", float("inf"), "other should be a finite number, given inf"),
]


@pytest.mark.parametrize(("file", "name", "value", "message"), ABSURD)
def test_absurd_values_are_refused_before_anything_is_built(tiny_folder, tmp_path, file, name, value, message):
    folder = tmp_path / "absurd"
    shutil.copytree(tiny_folder, folder)
    values = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(values | {name: value}))
    began = time.monotonic()
    with pytest.raises(ValueError, match=rf"{file}: {message}") as refusal:
        load(folder, device="cpu")
    assert time.monotonic() - began < 20  # the machine may be busy
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "JSON nested too deeply"),
        ('{"num_frames": ' + "1" * 5000 + "}", "a number of 5000 digits"),
        ("[1]", "it should be a JSON object"),
        ("{", "not JSON that can be read"),
        ("{}".encode("utf-16"), "not a text file in UTF-8 but in UTF-16"),
    ],
)
@pytest.mark.parametrize("file", ["unet/config.json", "model_index.json"])
def test_what_is_no_configuration(tiny_folder, tmp_path, file, content, message):
    folder = tmp_path / "broken"
    shutil.copytree(tiny_folder, folder)
    (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=rf"{file}: ") as refusal:
        Source(str(folder)).read(file)
    assert message in str(refusal.value)
    assert "save or download the pipeline again" in str(refusal.value)
    with pytest.raises(ValueError, match=r"broken.*json: "):
        load(folder, device="cpu")


def test_every_default_of_diffusers_is_accepted():
    checked = 0
    for name in dir(diffusers):
        if name.endswith("Scheduler"):
            parameters = inspect.signature(getattr(diffusers, name).__init__).parameters.values()
            defaults = {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}
            check_configuration(defaults, name)
            checked += "num_train_timesteps" in defaults
    assert checked > 30
