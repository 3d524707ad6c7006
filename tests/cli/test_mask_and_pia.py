"""Animate-Anything and PIA, tiny, from a folder: generate, statistics, and a sweep from them."""

import json
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tiny.animate_anything import tiny_animate_anything
from tests.tiny.sd15 import _build_pia
from unleak.core.moments import LatentMoments
from unleak.data.video import read_video, write_video

BUILD = {"animate_anything": tiny_animate_anything, "pia": _build_pia}
SIZE = ("--size", "16x16", "--num-frames", 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    def saved(name):
        path = tmp_path_factory.mktemp("models") / name
        BUILD[name]().save_pretrained(path)
        return path

    return cache(saved)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", BUILD)
def test_generate_starts_where_the_family_is_recommended_to(unleak, folder, photo, here, name):
    result = unleak("generate", photo, "--model", folder(name), "--steps", 2, "--prompt", "a dog", *SIZE)
    assert (result.status, result.out) == (0, "out/photo.mp4\n"), result.err
    assert "the fix recommended for this model" in result.err
    assert read_video(here / "out/photo.mp4").frames.shape == (4, 16, 16, 3)
    assert json.loads((here / "out/photo.json").read_text())["timesteps"][0] < 999


def test_a_mask_is_measured_inside_and_outside(unleak, folder, photo, here):
    pixels = np.zeros((32, 48), np.uint8)
    pixels[:, 24:] = 255
    Image.fromarray(pixels).save(here / "mask.png")
    options = ("--steps", 2, "--prompt", "a dog", "--mask", "mask.png", *SIZE)
    result = unleak("generate", photo, "--model", folder("animate_anything"), *options)
    assert result.status == 0, result.err
    motion = json.loads((here / "out/photo.json").read_text())["motion"]
    assert {"inside", "outside"} <= motion.keys()


@pytest.mark.parametrize("name", BUILD)
def test_statistics_of_videos_and_a_sweep_from_them(unleak, folder, photo, here, name):
    (here / "clips").mkdir()
    for k in range(2):
        frames = np.random.default_rng(k).integers(0, 256, (6, 24, 40, 3), dtype=np.uint8)
        write_video(frames, here / f"clips/{k}.mp4", fps=7)
    where = ("--model", folder(name))
    result = unleak("stats", *where, "--videos", "clips", "--out", "m.safetensors", "--workers", 0, "--fps", 7, *SIZE)
    assert result.status == 0, result.err
    moments = LatentMoments.load(here / "m.safetensors")
    assert (moments.count, moments.shape[:2]) == (2, (4, 4))
    assert torch.isfinite(moments.mean).all()

    options = ("--start", "1.0T,0.9T", "--init", "m.safetensors", "--steps", 2, "--prompt", "a dog", *SIZE)
    result = unleak("sweep", photo, *where, *options)
    assert result.status == 0, result.err
    record = json.loads((here / "out/photo-sweep/sweep.json").read_text())
    assert [run["start"]["timestep"] for run in record["runs"]] == [1000, 900]
