"""DynamiCrafter and VideoCrafter1, tiny, from a folder: generate, sweep and stats."""

import json
from functools import cache

import numpy as np
import pytest
import torch

from tests.tiny.lvdm import TINY
from unleak.core.moments import LatentMoments
from unleak.data.video import read_video, write_video

NAMES = [tiny.name for tiny in TINY]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    def saved(name):
        (tiny,) = (tiny for tiny in TINY if tiny.name == name)
        path = tmp_path_factory.mktemp("models") / name
        tiny.build().save_pretrained(path)
        return path

    return cache(saved)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_generate_starts_at_0_94_t_at_the_size_of_the_folder(unleak, folder, photo, here, name):
    words = ("--prompt", "a dog runs", "--negative-prompt", "a dog", "--fps", 12)
    result = unleak("generate", photo, "--model", folder(name), "--steps", 2, *words)
    assert (result.status, result.out) == (0, "out/photo.mp4\n"), result.err
    assert "start 0.94T, the fix recommended for this model; init standard" in result.err
    clip = read_video(here / "out/photo.mp4")
    assert (clip.frames.shape, clip.fps) == ((4, 16, 24, 3), 12)
    record = json.loads((here / "out/photo.json").read_text())
    assert record["timesteps"][0] == 939
    assert record["settings"]["arguments"]["fps"] == 12
    assert record["model"]["scheduler"]["class"] == "LVDMScheduler"


@pytest.mark.parametrize("name", NAMES)
def test_statistics_of_videos_and_a_sweep_from_them(unleak, folder, photo, here, name):
    (here / "clips").mkdir()
    for k in range(2):
        frames = np.random.default_rng(k).integers(0, 256, (6, 24, 40, 3), dtype=np.uint8)
        write_video(frames, here / f"clips/{k}.mp4", fps=7)
    result = unleak("stats", "--model", folder(name), "--videos", "clips", "--out", "m.safetensors", "--workers", 0)
    assert result.status == 0, result.err
    moments = LatentMoments.load(here / "m.safetensors")
    assert (moments.count, tuple(moments.shape)) == (2, (4, 4, 8, 12))
    assert torch.isfinite(moments.mean).all()

    options = ("--start", "1.0T,940,0.9T", "--init", "m.safetensors", "--steps", 2, "--prompt", "a dog")
    result = unleak("sweep", photo, "--model", folder(name), *options)
    assert result.status == 0, result.err
    record = json.loads((here / "out/photo-sweep/sweep.json").read_text())
    assert [run["start"]["timestep"] for run in record["runs"]] == [1000, 940, 900]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--size", "30x16"), "size 30x16: dynamicrafter takes multiples of 4"),
        (("--num-frames", 5), "num_frames 5: this network was trained on 4 frames"),
        (("--set", "frame_stride=3"), "frame_stride=3: this network is told the fps"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(unleak, folder, photo, here, options, reason):
    result = unleak("generate", photo, "--model", folder("dynamicrafter"), "--steps", 1, "-q", *options)
    assert (result.status, result.out) == (2, "")
    assert reason in result.err
    assert len(result.err.splitlines()) == 1
    assert not (here / "out/photo.mp4").exists()


@pytest.mark.parametrize("name", NAMES)
def test_doctor_estimates_the_memory_of_a_folder(unleak, folder, here, name):
    result = unleak("doctor", "--model", folder(name), "--json")
    assert result.status == 0, result.err
    ways = json.loads(result.out)["ways"]
    assert [way["peak_gb"] for way in ways] == sorted((way["peak_gb"] for way in ways), reverse=True)
