import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from unleak.data.image import MediaError
from unleak.data.video import write_video
from unleak.train.config import RecipeError, parse_recipe
from unleak.train.data import Order, open_dataset
from unleak.train.trainer import train


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Frame k of every video is of brightness 10 k."""
    folder = tmp_path_factory.mktemp("clips")
    for name, (height, width), frames in (("tall", (64, 32), 20), ("wide", (32, 64), 20), ("long", (32, 64), 24)):
        video = np.broadcast_to(
            (10 * np.arange(frames, dtype=np.uint8))[:, None, None, None], (frames, height, width, 3)
        )
        write_video(video, folder / f"{name}.mp4", fps=6)
    return folder


def data(clips, **changes):
    values = {"kind": "folder", "path": str(clips), "size": [16, 16], "num_frames": 4, "fps": 6.0} | changes
    recipe = {"model": "nano", "output": "o", "steps": 1, "condition": {"noise": "none"}, "data": values}
    return open_dataset(parse_recipe(recipe).data)


def steps(item):
    """How many frames of the video there are between two of the clip."""
    return [round(float(d) / 10) for d in item["video"][:, 8, 8, 0].float().diff()]


def test_strides_are_drawn_for_each_clip_told_and_limited(clips):
    dataset = data(clips, fps=None, stride=[1, 3], clips_per_video=6)
    items = [dataset[i] for i in range(len(dataset))]
    drawn = {tuple(steps(item)) for item in items}
    assert {(1, 1, 1), (2, 2, 2), (3, 3, 3)} == drawn
    assert all(item["fps"] == pytest.approx(6 / steps(item)[0]) for item in items)
    longest = data(clips, fps=None, stride=[9, 9], num_frames=6)[0]  # 24 frames: at most every fourth
    assert steps(longest) == [4] * 5


def test_clips_of_a_video_differ_and_are_the_same_every_time(clips):
    dataset = data(clips, clips_per_video=8, flip=True, condition_frame="random")
    again = data(clips, clips_per_video=8, flip=True, condition_frame="random")
    assert len(dataset) == 24
    starts = {float(dataset[i]["video"][0].float().mean()) for i in range(8)}
    assert len(starts) > 3
    assert len({dataset[i]["condition_frame"] for i in range(8)}) > 1
    for i in (0, 9, 23):
        assert torch.equal(dataset[i]["video"], again[i]["video"])


def test_buckets_by_shape_then_length_and_steps_of_one_bucket(clips):
    buckets = [[32, 16, 4], [16, 32, 4], [16, 32, 22], [16, 32, 50]]
    dataset = data(clips, buckets=buckets)
    shapes = {entry.path.stem: tuple(dataset[i]["video"].shape) for i, entry in enumerate(dataset.entries)}
    assert shapes == {"tall": (4, 32, 16, 3), "wide": (4, 16, 32, 3), "long": (22, 16, 32, 3)}
    groups = [[0, 1, 2, 3, 4], [5, 6]]
    order = Order(seed=0, length=7, batch_size=2, groups=groups)
    epochs = [[order.clip(8 * epoch + k) for k in range(8)] for epoch in range(2)]
    for epoch in epochs:
        pairs = [tuple(epoch[i : i + 2]) for i in range(0, 8, 2)]
        assert all({a in groups[0], b in groups[0]} != {True, False} for a, b in pairs)
        assert set(epoch) == set(range(7))
    assert epochs[0] != epochs[1]


def test_a_damaged_video_is_named_and_another_takes_its_place(tmp_path, clips, recipe):
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("tall", "wide", "long"):
        (folder / f"{name}.mp4").write_bytes((clips / f"{name}.mp4").read_bytes())
    whole = (folder / "wide.mp4").read_bytes()
    start = whole.index(b"mdat") + 8
    (folder / "wide.mp4").write_bytes(whole[:start] + bytes(len(whole) - start))  # its header is sound
    dataset = data(folder)
    item = dataset[2]
    assert dataset.name(2).endswith("wide.mp4")
    assert item["clip"] != 2
    assert item["failures"]
    assert all("wide.mp4" in video and "wide.mp4" in reason for video, reason in item["failures"])
    assert torch.equal(item["video"], dataset[item["clip"]]["video"])
    values = {"kind": "folder", "path": str(folder), "size": [32, 32], "num_frames": 3, "fps": 6.0, "max_failures": 0.4}
    run = recipe(data=values, steps=3)
    train(run)
    assert "wide.mp4" in (run.output / "failures.json").read_text()
    with pytest.raises(MediaError, match=r"1 of 3 videos cannot be used.*max_failures = 0.1.*failures.json"):
        train(recipe(data={**values, "max_failures": 0.1}, steps=3, output=str(tmp_path / "strict")))


def test_a_video_that_hangs_costs_its_time_and_no_more(clips, tmp_path, monkeypatch):
    dataset = data(clips, seconds=0.5)
    assert dataset[0]["failures"] == []
    hanging = subprocess.Popen(
        [sys.executable, "-c", "import sys; print('ready', flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    monkeypatch.setattr(dataset.reader, "process", hanging)
    began = time.monotonic()
    item = dataset[1]
    assert "not read within 0.5 s" in item["failures"][0][1]
    assert time.monotonic() - began < 60
    assert item["clip"] != 1 or len(item["failures"]) == 1


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"fps": None}, "data.stride: give one of fps and stride"),
        ({"stride": [1, 2]}, "data.stride: give one of fps and stride"),
        ({"fps": None, "stride": [3, 2]}, "data.stride: must be [least, most]"),
    ],
)
def test_contradictions(clips, change, line):
    with pytest.raises(RecipeError) as refusal:
        data(clips, **change)
    assert line in str(refusal.value)
