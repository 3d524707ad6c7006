"""The first commands that a newcomer types, from the wheel alone: what ships in it is found, and the page opens."""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from functools import partial

import pytest
import yaml

pytestmark = pytest.mark.slow
SMALL = ("--set", "model=nano", "--set", "data.size=[64,64]", "--set", "data.num_frames=12", "--set", "data.fps=6")


def test_every_command_explains_itself(command):
    names = ["generate", "try", "sweep", "tune", "compare", "diagnose", "evaluate", "stats", "train", "convert", "ui"]
    text = command("--help")
    for name in names:
        assert f" {name} " in text
        assert "Usage" in command(name, "--help")


def test_the_example_photo_is_animated(command):
    told = json.loads(command("try", "--example", "--steps", 2, "--budget", 1, "--json"))
    assert told
    assert list(command.work.rglob("*.mp4"))
    assert list(command.work.rglob("index.html"))


def test_models_and_machine_are_listed(command):
    assert "svd-xt" in command("models")
    assert "nano" in command("doctor")


def test_a_recipe_is_found_by_its_name_and_trains(command, clips):
    assert "svd-512-timenoise" in command("recipes")
    recipe = yaml.safe_load(command("recipes", "show", "svd-512-timenoise"))
    assert recipe["condition"]["noise"] == "timenoise"
    steps = ("--set", f"data.path={clips}", "--set", "output=run", "--set", "batch_size=1")
    command("train", "svd-512-timenoise", *SMALL, *steps, "--set", "steps=1")
    command("train", "svd-512-timenoise", *SMALL, *steps, "--set", "steps=2")  # it goes on
    assert (command.work / "run/pipeline/model_index.json").is_file()
    assert list((command.work / "run/checkpoints").glob("step-*2"))


def test_the_page_opens_answers_and_stops(command):
    words = [sys.executable, "-P", "-m", "unleak", "ui", "--quiet", "--device", "cpu"]
    server = subprocess.Popen(
        words,
        cwd=command.work,
        env=command.environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
    )
    try:
        address = server.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address, timeout=120) as answer:
            assert b"unleak" in answer.read()
        began = time.monotonic()
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=120) == 130
        assert time.monotonic() - began < 120
    finally:
        server.kill()
        server.wait()
