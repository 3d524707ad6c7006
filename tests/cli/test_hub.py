"""Models by Hub id, from a Hub on this machine: what is downloaded and recorded, what is said when it cannot be."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.zoo.hub_server import COMMIT, Hub, Mishap

GATED, PRESENT = "someone/gated", "someone/tiny-wan"

RUN = """
import contextlib, io, json, sys
from unleak.cli import main
told = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(arguments)
    told.append([status, out.getvalue(), err.getvalue()])
print(json.dumps(told))
"""


@pytest.mark.slow
def test_a_hub_id_is_estimated_downloaded_pinned_and_animated(pipeline_folder, photo, tmp_path):
    server = Hub({GATED: {}}, {GATED: [Mishap(403, "GatedRepo", method=method) for method in 9 * ("HEAD",)]}).start()
    server.add(PRESENT, pipeline_folder("wan22"))
    small = ["--size", "32x16", "--num-frames", "5"]
    steps = ["--steps", "9", "--set", "max_sequence_length=8"]
    commands = [
        ["doctor", "--model", PRESENT, *small, "--json"],
        ["generate", "photo.png", "--model", PRESENT, *small, *steps, "--json", "--quiet"],
        ["generate", "photo.png", "--model", GATED, "--out", "gated"],
        ["generate", "photo.png", "--model", "someone/none", "--out", "none"],
    ]
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "home"), "UNLEAK_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", RUN, json.dumps(commands)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    finally:
        server.stop()
    assert done.returncode == 0, done.stderr
    (doctor, generate, gated, missing) = json.loads(done.stdout.splitlines()[-1])
    assert doctor[0] == 0, doctor
    estimated = json.loads(doctor[1])
    weights = load_file(pipeline_folder("wan22") / "vae/diffusion_pytorch_model.safetensors")
    assert estimated["weights_gb"]["vae"] == pytest.approx(4e-9 * sum(map(torch.numel, weights.values())))
    assert any(one.range for one in server.got("safetensors"))
    assert generate[0] == 0, generate
    (video,) = json.loads(generate[1])["videos"]
    assert (video["model"]["source"], video["model"]["revision"]) == (PRESENT, COMMIT)
    assert (tmp_path / "out/photo.mp4").is_file()
    assert gated[0] == missing[0] == 2
    assert (
        gated[2]
        == f"error: model {GATED}: gated: accept its licence on the Hub, then log in here with `hf auth login`\n"
    )
    assert missing[2].startswith("error: model someone/none: the Hub has no such repository, or it is private; check")
    assert not (tmp_path / "gated").exists()


@pytest.mark.parametrize("told", ["--json", "--quiet"])
def test_a_download_shows_no_bar_where_only_results_are_asked_for(pipeline_folder, tmp_path, told):
    server = Hub(store=Hub().start()).start()
    server.add(PRESENT, pipeline_folder("wan22"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "home"), "UNLEAK_CACHE": str(tmp_path)}
    command = [sys.executable, "-m", "unleak", "models", "fetch", PRESENT, told]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    finally:
        server.stop()
        server.store.stop()
    assert done.returncode == 0, done.stderr
    assert server.store.asked  # something was downloaded
    assert done.stderr == ""
