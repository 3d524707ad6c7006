"""The package as a user has it: a wheel, installed, and commands in processes of their own, in an empty folder."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from tests.matrix import alone
from tests.tiny.commands import FOLDERS, Folder, save
from unleak.data.video import write_video

ROOT = Path(__file__).parents[2]
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(list(alone.PRELOADED))


def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of one run have in common."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


def made_once(target: Path, make: Callable[[], object]) -> Path:
    """What the first worker makes, the others find."""
    with FileLock(f"{target}.lock"):
        if not target.exists():
            make()
    return target


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """The folder that the wheel is installed in, which holds nothing else."""
    target = shared(tmp_path_factory) / "installed"

    def install():
        wheels = tmp_path_factory.mktemp("wheels")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), str(ROOT)], check=True)
        (wheel,) = wheels.glob("unleak-*.whl")
        made = target.with_suffix(".part")
        subprocess.run([*pip, "install", "--no-deps", "--target", str(made), str(wheel)], check=True)
        made.rename(target)

    return made_once(target, install)


@pytest.fixture
def command(installed, tmp_path):
    """Run `unleak ...` from the wheel; `(*arguments, **environment) -> stdout`, after checking that it succeeded.

    Each command has a process of its own. It is forked from one that has imported torch and diffusers and nothing of
    unleak, which saves their seconds; with an `environment`, which those read when they are imported, it is a new one.
    """
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "UNLEAK_"))}
    plain |= {"PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1", "UNLEAK_CACHE": str(tmp_path / "cache")}
    work = tmp_path / "work"
    work.mkdir()

    def run(*arguments, **environment):
        told = [*map(str, arguments)]
        if environment:
            started = [sys.executable, "-P", "-m", "unleak", *told]
            done = subprocess.run(started, capture_output=True, text=True, cwd=work, env=plain | environment)
            status, out, err = done.returncode, done.stdout, done.stderr
        else:
            streams = tmp_path / "stdout", tmp_path / "stderr"
            process = FORKED.Process(target=alone.run, args=(told, work, installed, plain, *streams))
            process.start()
            process.join()
            status, (out, err) = process.exitcode, (stream.read_text() for stream in streams)
        assert status == 0, err
        assert "Traceback" not in err
        return out

    run.work, run.environment = work, plain
    return run


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Callable[[str], tuple[Path, Folder]]:
    """Name of a pipeline -> its saved folder, and what commands are to be told."""

    def saved(name):
        target = shared(tmp_path_factory) / f"saved-{name}"
        return made_once(target, lambda: save(name, target)), FOLDERS[name]

    return cache(saved)


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def clips(tmp_path):
    place = tmp_path / "clips"
    place.mkdir()
    for k in range(2):
        frames = np.random.default_rng(k).integers(0, 256, (12, 40, 72, 3), dtype=np.uint8)
        write_video(frames, place / f"{k}.mp4", fps=6)
        (place / f"{k}.txt").write_text("a dog runs")
    return place
