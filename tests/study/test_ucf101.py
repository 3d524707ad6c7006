import json

import numpy as np
import pytest
from PIL import Image

from unleak.data.image import MediaError
from unleak.data.lists import read_list
from unleak.data.video import write_video
from unleak.study.evaluate.ucf101 import category, long_enough, prepare, shuffled


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", "apply eye makeup"),
        ("YoYo/v_YoYo_g25_c05.avi", "yo yo"),
        ("HandstandPushups/v_HandStandPushups_g01_c01.avi", "handstand pushups"),  # the dataset writes it in two ways
        ("mine/v_TaiChi_g02_c03.avi", "tai chi"),
        ("Typing/v_Typing_g02_c03.mp4", "typing"),
    ],
)
def test_a_category_in_words(tmp_path, path, words):
    assert category(tmp_path / path) == words


@pytest.mark.parametrize("name", ["dog.avi", "v_Typing_g02.avi", "Typing_g02_c03.avi"])
def test_other_names_are_refused(tmp_path, name):
    with pytest.raises(MediaError, match="not named as clips of UCF101 are"):
        category(tmp_path / name)


@pytest.fixture
def dataset(tmp_path):
    """Three categories of four clips, of 1 to 4 s at 5 Hz."""
    root = tmp_path / "UCF-101"
    for shade, name in enumerate(("ApplyEyeMakeup", "Typing", "YoYo")):
        (root / name).mkdir(parents=True)
        for k in range(1, 5):
            frames = np.full((5 * k, 24, 32, 3), 60 * shade + 10 * k, np.uint8)
            write_video(frames, root / name / f"v_{name}_g01_c0{k}.mp4", fps=5)
    return root


def test_the_order_is_of_the_names_alone_and_of_all_categories(dataset, tmp_path):
    videos = sorted(dataset.rglob("*.mp4"))
    order = shuffled(videos)
    assert order == shuffled(reversed(videos))
    assert [video.stem for video in order] == [video.stem for video in shuffled(tmp_path / v.name for v in videos)]
    assert sorted(order) == videos
    assert order != videos
    assert len({video.parent for video in order[:6]}) == 3


def test_clips_that_are_too_short_are_counted(dataset):
    videos = sorted((dataset / "Typing").iterdir())
    broken = dataset / "Typing/v_Typing_g09_c01.mp4"
    broken.write_bytes(b"nothing")
    found, shorter = long_enough([*videos, broken], seconds=2.4, most=None)
    assert [video.name[-6:-4] for video in found] == ["03", "04", "01"]  # what is broken is told when it is read
    assert shorter == 2
    assert long_enough(videos, seconds=1.0, most=2) == (videos[:2], 0)


def test_photos_and_a_list_that_generate_reads(dataset, tmp_path):
    videos, told = shuffled(dataset.rglob("*.mp4"))[:5], []
    bad = tmp_path / "v_YoYo_g07_c01.mp4"
    bad.write_bytes(b"nothing")
    file = prepare([*videos, bad], tmp_path / "asked", on_skipped=told.append)
    assert len(told) == 1
    assert str(bad) in told[0]
    entries = read_list(file)
    assert [entry.name for entry in entries] == [video.stem for video in videos]
    assert [entry.prompt for entry in entries] == [category(video) for video in videos]
    assert [entry.seed for entry in entries] == list(range(5))  # no two samples share their noise
    for entry, video in zip(entries, videos, strict=True):
        with Image.open(entry.photo) as photo:
            shade = 60 * ["ApplyEyeMakeup", "Typing", "YoYo"].index(video.parent.name) + 10 * int(video.stem[-1])
            assert photo.size == (32, 24)
            assert np.asarray(photo).mean() == pytest.approx(shade, abs=3)
    before = entries[0].photo.stat().st_mtime_ns
    assert prepare(videos, tmp_path / "asked").read_text().count("\n") == 5
    assert entries[0].photo.stat().st_mtime_ns == before  # what is there stays
    with pytest.raises(ValueError, match="none of the clips"):
        prepare([bad], tmp_path / "none")


@pytest.mark.parametrize("seed", [-1, 1.5, "x", True, "1e3"])
def test_a_seed_that_is_none_is_refused(tmp_path, seed):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "list.jsonl").write_text(json.dumps({"dir": "a.png", "seed": seed}))
    with pytest.raises(MediaError, match="line 1: seed is no whole number"):
        read_list(tmp_path / "list.jsonl")


def test_a_table_has_seeds_too(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "list.csv").write_text("image,seed\na.png,12\na.png,\n")
    assert [entry.seed for entry in read_list(tmp_path / "list.csv")] == [12, None]
