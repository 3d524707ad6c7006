"""Every command on every family, as a user types it: in a process of its own, from the installed wheel."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import CLIPTokenizer

from tests.families import lvdm_original as original
from tests.tiny.commands import FOLDERS
from tests.zoo.hub_server import Hub
from unleak.zoo.words import OPENCLIP


def small(about, *, steps=9):  # fewer are taken for those of a distilled model
    width, height = about.size
    told = ["--size", f"{width}x{height}", "--num-frames", about.frames, "--steps", steps, *about.options]
    return told + (["--prompt", "a dog runs"] if about.prompt else [])


def generate(command, path, about, photo, clips):
    told = json.loads(command("generate", photo, "--model", path, *small(about), "--json"))
    assert (command.work / told["videos"][0]["video"]).is_file()


def sweep(command, path, about, photo, clips):
    command("sweep", photo, "--model", path, *small(about), "--start", "1.0T,0.9T")
    record = json.loads((command.work / "out/photo-sweep/sweep.json").read_text())
    assert len(record["runs"]) == 2


def tune(command, path, about, photo, clips):
    told = command("tune", photo, "--model", path, *small(about), "--target-motion", "4px/s", "--budget", 3)
    assert told


def compare(command, path, about, photo, clips):
    cases = ("--case", "plain: start=1.0T", "--case", "fixed: start=0.9T")
    command("compare", photo, "--model", path, *small(about), *cases, "--out", "page")
    assert list((command.work / "page").rglob("*.html"))


def stats(command, path, about, photo, clips):
    size = f"{about.size[0]}x{about.size[1]}"
    told = ("--size", size, "--num-frames", about.frames, "--fps", 6, "--workers", 0)
    command("stats", "--model", path, "--videos", clips, "--out", "m.safetensors", *told)
    assert (command.work / "m.safetensors").is_file()


def diagnose(command, path, about, photo, clips):
    told = [entry for entry in small(about) if entry not in about.options]
    told += ["--fps", 6, "--clips", 2, "--start", "0.9T", "--seeds", 1]
    command("diagnose", "--model", path, "--videos", clips, *told, "--out", "d")
    assert list((command.work / "d").iterdir())


def doctor(command, path, about, photo, clips):
    size = ("--size", f"{about.size[0]}x{about.size[1]}", "--num-frames", about.frames)
    assert json.loads(command("doctor", "--model", path, *size, "--json"))["ways"]


def _recipe(command, path, about, clips):
    data = {"kind": "folder", "path": str(clips), "size": list(about.size), "num_frames": about.frames, "fps": 3.0}
    recipe = {"model": str(path), "output": "trained", "data": data, "steps": 1, "batch_size": 1, "lr": 1e-3}
    recipe["condition"] = {"noise": "timenoise", "dropout": 0.1}
    (command.work / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    return "recipe.yaml"


def train_dry_run(command, path, about, photo, clips):
    command("train", _recipe(command, path, about, clips), "--dry-run")
    assert not (command.work / "trained").exists()


def train_a_step(command, path, about, photo, clips):
    command("train", _recipe(command, path, about, clips))
    assert (command.work / "trained/pipeline/model_index.json").is_file()


COMMANDS = {
    run.__name__: run for run in (generate, sweep, tune, compare, stats, diagnose, doctor, train_dry_run, train_a_step)
}
NEEDS = {"stats": "view", "diagnose": "view", "train_dry_run": "trains", "train_a_step": "trains"}
CASES = [
    pytest.param(name, run, id=f"{name}-{run}", marks=() if name == "dynamicrafter" else pytest.mark.slow)
    for name, about in FOLDERS.items()
    for run in COMMANDS
    if getattr(about, NEEDS.get(run, "build"))
]


@pytest.mark.parametrize(("name", "run"), CASES)
def test_a_folder_written_by_save_pretrained(command, folder, photo, clips, name, run):
    path, about = folder(name)
    COMMANDS[run](command, path, about, photo, clips)


@pytest.fixture
def letters(tmp_path):
    """The files of a CLIP tokenizer that knows letters only, as many as the tiny text encoders can tell apart."""
    known = [chr(ord("a") + place) for place in range(10)]
    every = ["!", *known, *(f"{letter}</w>" for letter in known), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: place for place, word in enumerate(every)}
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(tmp_path / "letters")
    return tmp_path / "letters"


@pytest.mark.slow
@pytest.mark.parametrize("family", ["dynamicrafter", "videocrafter1"])
def test_a_folder_written_by_convert(command, letters, photo, tmp_path, family):
    params = original.params(family)
    torch.save({"state_dict": original.checkpoint(params)}, tmp_path / "model.ckpt")
    (tmp_path / "model.yaml").write_text(json.dumps({"model": {"params": params}}))
    options = ("--config", tmp_path / "model.yaml", "--tokenizer", letters)
    command("convert", family, tmp_path / "model.ckpt", "made", *options)
    told = json.loads(command("generate", photo, "--model", "made", "--steps", 9, "--prompt", "a b", "--json"))
    assert (command.work / told["videos"][0]["video"]).is_file()
    command("convert", family, "made", "back.ckpt")
    back = torch.load(command.work / "back.ckpt", weights_only=True)["state_dict"]
    assert list(back) == list(torch.load(tmp_path / "model.ckpt", weights_only=True)["state_dict"])


@pytest.mark.slow
def test_by_name_from_the_hub_the_first_time_and_the_second(command, folder, photo, tmp_path):
    path, about = folder("dynamicrafter")
    hub = Hub(store=Hub().start()).start()
    try:
        hub.add("someone/tiny", path)
        environment = {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hub")}
        asked = ("generate", photo, "--model", "someone/tiny", *small(about), "--json")
        first = json.loads(command(*asked, **environment))
        downloads = len(hub.store.asked)
        second = json.loads(command(*asked, "--out", "again", **environment))
    finally:
        hub.stop()
        hub.store.stop()
    assert downloads > 0
    assert len(hub.store.asked) == downloads  # the weights are here
    one, other = ((command.work / told["videos"][0]["video"]).read_bytes() for told in (first, second))
    assert one == other


TINY = """
import json, sys
from unleak.families.videocrafter1 import convert
convert.VARIANTS["512"] = json.loads(sys.argv[1])  # in place of the published sizes
from unleak.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
def test_a_listed_name_is_converted_the_first_time_and_found_the_second(command, letters, photo, tmp_path):
    params = original.params("videocrafter1")
    torch.save({"state_dict": original.checkpoint(params)}, tmp_path / "model.ckpt")
    words = json.loads((letters / "tokenizer.json").read_text())["model"]["vocab"]
    tokenizer = {"vocab.json": json.dumps(words).encode(), "merges.txt": b"#version: 0.2\n"}
    hub = Hub({OPENCLIP: {**tokenizer, "tokenizer_config.json": b"{}"}}).start()
    hub.repositories["VideoCrafter/Image2Video-512"] = {"model.ckpt": (tmp_path / "model.ckpt").read_bytes()}
    home = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hub")}
    asked = ["generate", str(photo), "--model", "videocrafter1-512", "--size", "64x64", "--num-frames", "4"]
    asked += ["--steps", "9", "--start", "0.9T", "--prompt", "a b", "--json"]
    try:
        first = [sys.executable, "-P", "-c", TINY, json.dumps(params), *asked]
        environment = command.environment | home | {"HF_HUB_OFFLINE": "0"}
        done = subprocess.run(first, capture_output=True, text=True, cwd=command.work, env=environment)
        assert done.returncode == 0, done.stderr
        requests = len(hub.asked)
        second = command(*asked, "--out", "again", **home)
        assert len(hub.asked) == requests > 0
    finally:
        hub.stop()
    videos = [command.work / json.loads(told)["videos"][0]["video"] for told in (done.stdout, second)]
    assert videos[0].read_bytes() == videos[1].read_bytes()


def test_evaluate(command, clips):
    told = json.loads(command("evaluate", "--videos", clips, "--json", "--out", "e"))
    assert told


def test_the_commands_come_from_the_wheel_and_nothing_else(installed, command):
    where = [sys.executable, "-P", "-c", "import unleak; print(unleak.__file__)"]
    done = subprocess.run(where, capture_output=True, text=True, cwd=command.work, env={"PYTHONPATH": str(installed)})
    assert done.stdout.strip() == str(installed / "unleak/__init__.py"), done.stderr
