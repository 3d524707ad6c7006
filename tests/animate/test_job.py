"""Where videos go: nobody's file is replaced, and no photo hides another."""

import hashlib
import json
import os

import pytest
from PIL import Image

from unleak.animate.job import Job, placed
from unleak.animate.record import Photo


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for k, name in enumerate(("a.jpg", "a.png", "sub/a.png")):
        Image.new("RGB", (4, 4), (k, 0, 0)).save(tmp_path / name)
    return tmp_path


def jobs(folder, *photos, suffix="mp4", out="."):
    return [Job(folder / name, folder / out / f"{(folder / name).stem}.{suffix}") for name in photos]


def names(found):
    return [job.video.name for job in found]


def make(job):
    """As a run leaves it."""
    job.video.write_bytes(b"video")
    digest = hashlib.sha256(job.photo.read_bytes()).hexdigest()
    job.record.write_text(json.dumps({"video": str(job.video), "photo": {"sha256": digest}}))


@pytest.mark.parametrize("where", ["number", "overwrite", "skip"])
def test_no_input_is_replaced_by_the_video_of_another(folder, where):
    """The defect: `generate sub/a.png a.png --out . --format png --overwrite` replaced the second photo."""
    todo, done = placed(jobs(folder, "sub/a.png", "a.png", suffix="png"), where)
    assert (names(todo), done) == (["a-2.png", "a-3.png"], [])


def test_photos_of_one_name_have_videos_of_their_own(folder):
    todo, _ = placed(jobs(folder, "a.jpg", "a.png", "sub/a.png"), "overwrite")
    assert names(todo) == ["a.mp4", "a-2.mp4", "a-3.mp4"]


def test_skipping_hides_no_photo_that_was_not_made(folder):
    (first,), _ = placed(jobs(folder, "a.png"), "number")
    make(first)
    todo, done = placed(jobs(folder, "a.jpg", "a.png"), "skip")
    assert [(job.photo.name, job.video.name) for job in todo] == [("a.jpg", "a-2.mp4")]
    assert [(job.photo.name, job.video.name) for job in done] == [("a.png", "a.mp4")]
    make(todo[0])
    todo, done = placed(jobs(folder, "a.jpg", "a.png"), "skip")
    assert (todo, names(done)) == ([], ["a-2.mp4", "a.mp4"])
    Image.new("RGB", (4, 4), "red").save(folder / "a.png")  # another photo now
    todo, done = placed(jobs(folder, "a.jpg", "a.png"), "skip")
    assert (names(todo), names(done)) == (["a-3.mp4"], ["a-2.mp4"])


@pytest.mark.parametrize("content", [b"{}", b"[1, 2]", b"mine", b"", b'{"video": "a.mp4"}'])
@pytest.mark.parametrize("where", ["number", "overwrite", "skip"])
def test_a_record_of_something_else_is_never_replaced(folder, where, content):
    (folder / "a.json").write_bytes(content)
    assert names(placed(jobs(folder, "a.png"), where)[0]) == ["a-2.mp4"]


def test_what_overwriting_replaces(folder):
    (job,), _ = placed(jobs(folder, "a.png"), "number")
    make(job)
    assert names(placed(jobs(folder, "a.png"), "overwrite")[0]) == ["a.mp4"]
    assert names(placed(jobs(folder, "a.png", suffix="gif"), "overwrite")[0]) == ["a-2.gif"]
    job.video.unlink()
    assert names(placed(jobs(folder, "a.png", suffix="gif"), "overwrite")[0]) == ["a.gif"]
    (folder / "a.gif").mkdir()
    assert names(placed(jobs(folder, "a.png", suffix="gif"), "overwrite")[0]) == ["a-2.gif"]


@pytest.mark.parametrize("stem", ["x" * 251, "\u00e9" * 125, "\udcff" * 200])
def test_a_name_that_is_as_long_as_can_be_has_a_record_too(folder, stem):
    job = Job(folder / f"{stem}.png", folder / f"{stem}.mp4")
    other = Job(folder / f"{stem}.jpg", folder / f"{stem[:-1]}y.mp4")
    todo, _ = placed([job, job, other], "number")
    assert len({one.video for one in todo}) == 3
    for one in todo:
        assert len(os.fsencode(one.record.name)) <= 255
        one.record.touch()


def test_the_record_has_the_hash_of_the_photo_that_was_read(folder):
    digest = hashlib.sha256((folder / "a.png").read_bytes()).hexdigest()
    photo = Photo.read(folder / "a.png")
    (folder / "a.png").unlink()
    assert photo.record["sha256"] == digest
