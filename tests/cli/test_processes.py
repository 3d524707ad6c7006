"""Photos shared out over processes, as `accelerate launch` and `torchrun` start them."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.launching import LAUNCHERS, launch
from unleak.animate.job import Job
from unleak.animate.model import Loading
from unleak.cli.processes import Processes
from unleak.study.generate import Batch


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_make_the_videos_of_one_and_speak_once(launcher, generate, tiny_folder, tmp_path):
    shots = tmp_path / "shots"
    shots.mkdir()
    for name in "abc":
        Image.effect_noise((48, 32), 90).convert("RGB").save(shots / f"{name}.png")
    (shots / "bad.png").touch()
    small = ["--size", "16x16", "--steps", "2", "--model", tiny_folder]
    done = launch(launcher, tmp_path, "generate", "shots", *small, "--out", "two", "--json")
    told = json.loads(done.stdout)
    assert [Path(video["video"]).name for video in told["videos"]] == ["a.mp4", "b.mp4", "c.mp4"]
    assert [failure["photo"] for failure in told["failed"]] == ["shots/bad.png"]
    assert done.stderr.count("the fix recommended for this model") == 1
    assert done.stderr.count("error: shots/bad.png") == 1
    assert generate("shots", *small, "--out", "one").status == 2
    for name in "abc":
        assert (tmp_path / f"two/{name}.mp4").read_bytes() == (tmp_path / f"one/{name}.mp4").read_bytes()


@pytest.mark.slow
def test_bad_input_is_told_once(tmp_path):
    done = launch("torchrun", tmp_path, "generate", "none.jpg")
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.count("error: none.jpg: no such file or folder") == 1
    assert "unleak/cli/" not in done.stderr  # a traceback of ours; the launcher prints one of its own


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_every_job_is_done_once(count):
    jobs = tuple(Job(Path(f"{name}.png"), Path(f"{name}.mp4")) for name in "abcdef")
    batch = Batch(None, None, Loading(), jobs, (), None)
    shares = [batch.share(rank, count) for rank in range(count)]
    assert sorted((job for share in shares for job in share), key=jobs.index) == [*jobs]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_nothing_is_exchanged():
    alone = Processes()
    assert alone.is_main
    assert alone.from_main(lambda: 3) == 3
    assert alone.gather(4) == [4]
    alone.outlive_main()
