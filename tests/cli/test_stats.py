import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from unleak.core.moments import LatentMoments
from unleak.data import decode_worker
from unleak.data.video import write_video
from unleak.families.svd.view import SVDView
from unleak.stats.run import few


@pytest.fixture
def stats(unleak, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, names in {"clips": "ab", "more": "cd"}.items():
        (tmp_path / folder / "deep").mkdir(parents=True)
        for k, name in enumerate(names):
            frames = np.random.default_rng(ord(name)).integers(0, 256, (6, 24, 40, 3), dtype=np.uint8)
            write_video(frames, tmp_path / folder / ("deep" if k else "") / f"{name}.mp4", fps=7)
    options = ["--model", tiny_folder, "--size", "32x16", "--workers", 0]
    return lambda *arguments: unleak("stats", *options, *arguments)


def said(err):
    """What was said beside the number of videos and that these are few."""
    return "".join(line for line in err.splitlines(True) if not re.match(r"\d+ (videos$|clips?: too few)", line))


@pytest.mark.parametrize(
    ("count", "text"), [(1, "1 clip: too few"), (3, "3 clips: too few"), (100, None), (None, None)]
)
def test_too_few_clips_are_said(count, text):
    caution = few(count)
    assert caution is None if text is None else caution.startswith(text)
    assert text is None or f"about {100 / count:.0f} % too low" in caution


def test_moments_of_a_folder_their_report_and_their_use(stats, unleak, tiny_folder, tmp_path):
    result = stats("--videos", "clips", "--out", "new/m.safetensors", "--json")
    assert (result.status, said(result.err)) == (0, "")
    assert result.err.startswith("2 videos\n2 clips: too few for moments to use: the variance comes out about 50 %")
    moments = LatentMoments.load(tmp_path / "new/m.safetensors")
    assert (moments.count, moments.shape) == (2, (4, 4, 2, 4))
    assert (moments.meta.model, moments.meta.source, moments.meta.fps) == ("tiny", "clips", 7)
    report = json.loads((tmp_path / "new/m.json").read_text())
    assert json.loads(result.out) == {"file": "new/m.safetensors", **report}
    assert report["skipped"] == []
    assert report["isotropic_variance"] == pytest.approx(moments.isotropic_variance)
    assert report["settings"]["num_frames"] == 4
    Image.new("RGB", (32, 16), "olive").save(tmp_path / "photo.png")
    sampling = ["--model", tiny_folder, "--size", "32x16", "--steps", 1, "--init", "new/m.safetensors"]
    assert unleak("generate", "photo.png", *sampling).status == 0
    record = json.loads((tmp_path / "out/photo.json").read_text())
    assert record["init"] == "AnalyticInit(tiny, [4, 4, 2, 4])"


def test_two_runs_merge_into_one(stats, tmp_path):
    stats("--videos", "clips", "--out", "a.safetensors")
    stats("--videos", "more", "--merge", "a.safetensors", "--out", "ab.safetensors")
    stats("--videos", "more", "--out", "b.safetensors")
    assert stats("--merge", "a.safetensors", "--merge", "b.safetensors", "--out", "merged.safetensors").status == 0
    stats("--videos", "clips", "--videos", "more", "--out", "whole.safetensors")
    whole, *others = (LatentMoments.load(tmp_path / f"{name}.safetensors") for name in ("whole", "ab", "merged"))
    for other in others:
        assert other.count == whole.count == 4
        assert torch.allclose(other.mean, whole.mean, atol=1e-12)
        assert torch.allclose(other.variance, whole.variance, atol=1e-12)


def test_unusable_videos_are_named_listed_and_limited(stats, tmp_path):
    (tmp_path / "clips/broken.mp4").write_bytes(b"ffconcat version 1.0\nfile a.mp4\n")
    result = stats("--videos", "clips", "--out", "m.safetensors", "--max-failures", "0.5")
    assert result.status == 0
    assert said(result.err) == (
        "error: skipped clips/broken.mp4: a playlist of other files; "
        "give an MP4, MOV, WebM, MKV, AVI, GIF or MPEG file\n"
    )
    assert LatentMoments.load(tmp_path / "m.safetensors").count == 2
    (skipped,) = json.loads((tmp_path / "m.json").read_text())["skipped"]
    assert skipped["video"] == "clips/broken.mp4"
    assert "playlist" in skipped["reason"]
    strict = stats("--videos", "clips", "--out", "strict.safetensors")
    assert strict.status == 2
    assert "more than the share of 0.05 allowed (--max-failures)" in strict.err
    assert not (tmp_path / "strict.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--out", "m.safetensors"], "nothing to do; give --videos DIR"),
        (["--videos", "clips", "--out", "m.pt"], "ends in .safetensors"),
        (["--videos", "none", "--out", "m.safetensors"], "none: no such file or folder"),
        (["--videos", "there.json", "--out", "there.safetensors"], "there.json exists; give --overwrite"),
        (["--merge", "none.safetensors", "--out", "m.safetensors"], "no moments file at none.safetensors"),
        (["--videos", "clips", "--out", "m.safetensors", "--size", "20x20"], "takes multiples of 16"),
        (["--videos", "clips"], "Missing option"),
        (["--videos", "clips", "--out", "m.safetensors", "--shard", "3/2"], "--shard 3/2: give which of how many"),
        (["--merge", "x", "--out", "m.safetensors", "--shard", "1/2"], "for a single process with --videos"),
        (["--videos", "clips", "--out", "m.safetensors", "--workers", "-1"], "--workers"),
        (["--videos", "clips", "--out", "m.safetensors", "--workers", "two"], "--workers"),
        (["--videos", "clips", "--out", "m.safetensors", "--seconds-per-video", "0"], "0 seconds for a video"),
        (["--videos", "clips", "--out", "m.safetensors", "--seconds-per-video", "nan"], "nan seconds for a video"),
        (["--videos", "clips", "--out", "m.safetensors", "--memory-per-worker", "0.1"], "0.1 GiB of memory"),
        (["--videos", "clips", "--out", "m.safetensors", "--memory-per-worker", "inf"], "inf GiB of memory"),
        (["--videos", "clips", "--out", "m.safetensors", "--max-failures", "nan"], "'--max-failures'"),
        (["--videos", "clips", "--out", "m.safetensors", "--fps", "nan"], "'--fps'"),
        (["--merge", "*.none", "--out", "m.safetensors"], "--merge *.none: no such files"),
        (["--merge", "a", "--merge", "./a", "--out", "m.safetensors"], "--merge a is given twice"),
    ],
)
def test_bad_arguments_are_one_line(stats, tmp_path, arguments, reason):
    (tmp_path / "there.json").write_text("{}")
    result = stats(*arguments)
    assert (result.status, result.out) == (2, "")
    assert result.err.count("\n") == 1
    assert reason in result.err
    assert not list(tmp_path.glob("*.safetensors"))


def test_what_would_fail_in_the_end_fails_before_the_videos_are_encoded(stats, tmp_path, monkeypatch):
    stats("--videos", "clips", "--out", "a.safetensors")
    (tmp_path / "file").touch()
    encoded, encode = [], SVDView.encode_video
    monkeypatch.setattr(SVDView, "encode_video", lambda self, video: encoded.append(1) or encode(self, video))
    other_rate = ["--videos", "more", "--merge", "a.safetensors", "--fps", 6, "--out", "ab.safetensors"]
    for arguments, reason, clips in (
        (other_rate, "different latents (fps 6.0 and 7.0): ", 1),
        (["--videos", "more", "--out", "file/m.safetensors"], "file", 0),
        (["--videos", "more", "--out", "/proc/m.safetensors"], "/proc", 0),
    ):
        encoded.clear()
        result = stats(*arguments)
        assert (result.status, said(result.err).count("\n"), len(encoded)) == (2, 1, clips)
        assert reason in result.err


def test_an_existing_file_is_replaced_only_when_told(stats, tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"precious")
    refused = stats("--videos", "clips", "--out", "m.safetensors")
    assert refused.status == 2
    assert "--merge m.safetensors to add to it" in refused.err
    assert (tmp_path / "m.safetensors").read_bytes() == b"precious"
    assert stats("--videos", "clips", "--out", "m.safetensors", "--overwrite").status == 0


def assert_same(ours, theirs):
    """Counts equal, moments up to rounding in float64, reports as far as they are of the clips."""
    ours, theirs = (LatentMoments.load(path) for path in (ours, theirs))
    assert ours.count == theirs.count
    assert torch.allclose(ours.mean, theirs.mean, rtol=0, atol=1e-12)
    assert torch.allclose(ours.mean_square, theirs.mean_square, rtol=0, atol=1e-12)


def report(path):
    return json.loads(path.with_suffix(".json").read_text())


def test_workers_give_the_same_moments_and_cost_a_hanging_file_one_line(stats, tmp_path, monkeypatch):
    stats("--videos", "clips", "--out", "here.safetensors")
    (tmp_path / "hangs.mp4").symlink_to(tmp_path / "clips/a.mp4")
    hang = """
import time, unleak.data.decode_worker as worker
whole = worker.read_video
worker.read_video = lambda path, **asked: time.sleep(1000) if path.stem == 'hangs' else whole(path, **asked)
"""
    start = decode_worker._START
    monkeypatch.setattr(decode_worker, "_START", start.replace("from unleak", f"exec({hang!r}); from unleak"))
    result = stats(
        *["--videos", "clips", "--videos", "hangs.mp4", "--out", "there.safetensors", "--max-failures", 0.5],
        *["--workers", 2, "--seconds-per-video", 3, "--memory-per-worker", 2],
    )
    reason = "hangs.mp4: not read within 3 s; leave it out, or allow more time"
    assert (result.status, said(result.err)) == (0, f"error: skipped {reason}\n")
    assert report(tmp_path / "there")["skipped"] == [{"video": "hangs.mp4", "reason": reason}]
    assert_same(tmp_path / "there.safetensors", tmp_path / "here.safetensors")


def test_shards_merge_into_the_run_and_none_counts_twice(stats, tmp_path):
    (tmp_path / "clips/broken.mp4").write_bytes(b"ffconcat version 1.0\n")
    videos = ["--videos", "clips", "--videos", "more", "--clips-per-video", 2, "--max-failures", 0.2]
    stats(*videos, "--out", "whole.safetensors")
    for k in (3, 1, 2):
        assert stats(*videos, "--shard", f"{k}/3", "--out", "m.safetensors").status == 0

    def merge(*files):
        return ["--out", "m.safetensors", *(option for f in files for option in ("--merge", f"m.{f}.safetensors"))]

    strict = stats(*merge("*-of-3"))
    assert (strict.status, strict.err.count("\n")) == (2, 1)
    assert "1 of 5 videos cannot be used, more than the share of 0.05 allowed" in strict.err
    assert stats(*merge("*-of-3"), "--max-failures", 0.2).status == 0
    assert_same(tmp_path / "m.safetensors", tmp_path / "whole.safetensors")
    assert report(tmp_path / "m")["parts"] == report(tmp_path / "whole")["parts"]

    some = stats(*merge("3-of-3", "1-of-3"), "--max-failures", 0.2, "--overwrite")
    assert (some.status, said(some.err)) == (
        0,
        "these are the shards 3/3, 1/3 of a run; --merge m.safetensors with the others when they are done\n",
    )
    rest = ["--merge", "m.2-of-3.safetensors", "--max-failures", 0.2, "--out", "n.safetensors"]
    assert stats("--merge", "m.safetensors", *rest).status == 0
    assert_same(tmp_path / "n.safetensors", tmp_path / "whole.safetensors")

    stats(*videos, "--seed", 1, "--shard", "2/3", "--out", "o.safetensors")
    for files, reason in (
        (["m.safetensors", "m.1-of-3.safetensors"], "some clips would count twice: shards 1/3, 1/3, 3/3 of one run"),
        (["whole.safetensors", "n.safetensors"], "some clips would count twice: shards 1/1, 1/1 of one run"),
        (["m.safetensors", "o.2-of-3.safetensors"], "are of different runs (seed 0 and 1); merge the shards of one"),
    ):
        result = stats(*(o for file in files for o in ("--merge", file)), "--out", "p.safetensors", "--max-failures", 1)
        assert (result.status, result.err.count("\n")) == (2, 1)
        assert reason in result.err
    again = stats(*videos, "--merge", "whole.safetensors", "--out", "p.safetensors")
    assert (again.status, again.err) == (
        2,
        "5 videos\nerror: some clips would count twice: shards 1/1, 1/1 of one run (tiny, seed 0); "
        "give each of one cut once\n",
    )
    assert not list(tmp_path.glob("p.*"))


def test_a_killed_run_goes_on_with_the_same_command(stats, tiny_folder, tmp_path):
    stats("--videos", "clips", "--videos", "more", "--out", "whole.safetensors")
    killed = f"""
import os, signal, sys
from functools import partial
from unleak.cli import main
from unleak.core.moments import LatentMoments
from unleak.stats import estimate as module

update, done = LatentMoments.update, []

def deadly(self, latents):
    done.append(1)
    if len(done) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return update(self, latents)

LatentMoments.update = deadly
module.estimate = partial(module.estimate, save_every=0)
main(["stats", "--model", {str(tiny_folder)!r}, "--size", "32x16", "--workers", "1", "--videos", "clips",
      "--videos", "more", "--out", "m.safetensors"])
"""
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -signal.SIGKILL
    left = {"clips", "more", "whole.safetensors", "whole.json", "m.progress"}
    assert {path.name for path in tmp_path.iterdir()} == left
    command = ["--videos", "clips", "--videos", "more", "--out", "m.safetensors"]
    for changed, reason in (
        (["--seed", 1], "m.progress is of a run that was begun otherwise (seed 0 and 1); give its settings to go on"),
        (["--shard", "1/2"], "m.progress is of a run cut in 1, this one is cut in 2"),
    ):
        result = stats(*command, *changed, "--quiet")
        assert (result.status, result.err.count("\n")) == (2, 1)
        assert reason in result.err
        assert {path.name for path in tmp_path.iterdir()} == left
    result = stats(*command)
    assert (result.status, said(result.err)) == (0, "going on from m.progress\n")
    assert (tmp_path / "m.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert report(tmp_path / "m") == report(tmp_path / "whole")
    assert not (tmp_path / "m.progress").exists()


@pytest.mark.slow
def test_processes_of_a_launcher_share_the_videos_and_write_one_file(stats, tiny_folder, tmp_path):
    (tmp_path / "clips/broken.mp4").write_bytes(b"ffconcat version 1.0\n")
    options = ["--videos", "clips", "--videos", "more", "--max-failures", "0.2"]
    stats(*options, "--out", "whole.safetensors")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "unleak"]
    command = [*launcher, "stats", "--model", str(tiny_folder), "--size", "32x16", *options]
    result = subprocess.run([*command, "--out", "m.safetensors"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("moments of 4 clips") == 1
    assert result.stderr.count("broken.mp4: a playlist of other files") == 1
    assert_same(tmp_path / "m.safetensors", tmp_path / "whole.safetensors")
    assert report(tmp_path / "m")["parts"] == report(tmp_path / "whole")["parts"]
    assert not list(tmp_path.glob("*.progress"))
    strict = subprocess.run(
        [*command, "--out", "n.safetensors", "--max-failures", "0.1"], capture_output=True, text=True
    )
    assert strict.returncode != 0
    assert "1 of 5 videos cannot be used" in strict.stderr
    assert not list(tmp_path.glob("n.*"))
