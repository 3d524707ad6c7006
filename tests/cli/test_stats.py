import json

import numpy as np
import pytest
import torch
from PIL import Image

from unleak.core.moments import LatentMoments
from unleak.data.video import write_video
from unleak.families.svd.denoiser import SVDDenoiser


@pytest.fixture
def stats(unleak, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, names in {"clips": "ab", "more": "cd"}.items():
        (tmp_path / folder / "deep").mkdir(parents=True)
        for k, name in enumerate(names):
            frames = np.random.default_rng(ord(name)).integers(0, 256, (6, 24, 40, 3), dtype=np.uint8)
            write_video(frames, tmp_path / folder / ("deep" if k else "") / f"{name}.mp4", fps=7)
    return lambda *arguments: unleak("stats", "--model", tiny_folder, "--size", "32x16", *arguments)


def test_moments_of_a_folder_their_report_and_their_use(stats, unleak, tiny_folder, tmp_path):
    result = stats("--videos", "clips", "--out", "new/m.safetensors", "--json")
    assert (result.status, result.err) == (0, "")
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
    assert result.err == (
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
    encoded, encode = [], SVDDenoiser.encode_video
    monkeypatch.setattr(SVDDenoiser, "encode_video", lambda self, video: encoded.append(1) or encode(self, video))
    other_rate = ["--videos", "more", "--merge", "a.safetensors", "--fps", 6, "--out", "ab.safetensors"]
    for arguments, reason, clips in (
        (other_rate, "different latents (fps 6.0 and 7.0): ", 1),
        (["--videos", "more", "--out", "file/m.safetensors"], "file", 0),
        (["--videos", "more", "--out", "/proc/m.safetensors"], "/proc", 0),
    ):
        encoded.clear()
        result = stats(*arguments)
        assert (result.status, result.err.count("\n"), len(encoded)) == (2, 1, clips)
        assert reason in result.err


def test_an_existing_file_is_replaced_only_when_told(stats, tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"precious")
    refused = stats("--videos", "clips", "--out", "m.safetensors")
    assert refused.status == 2
    assert "--merge m.safetensors to add to it" in refused.err
    assert (tmp_path / "m.safetensors").read_bytes() == b"precious"
    assert stats("--videos", "clips", "--out", "m.safetensors", "--overwrite").status == 0
