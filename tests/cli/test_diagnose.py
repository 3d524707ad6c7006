import json

import numpy as np
import pytest
from PIL import Image

FAST = ("--steps", 2, "--start", "0.9T,0.5T", "--seeds", 1, "--size", "32x32", "--num-frames", 3, "--quiet")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((160, 160), Image.Resampling.BICUBIC).save(folder / "a.png")
    return folder


@pytest.mark.slow
def test_photos_become_a_verdict_a_picture_and_tables(unleak, tiny_folder, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = unleak("diagnose", "--model", tiny_folder, "--photos", photos, "--clips", 4, *FAST)
    assert result.status == 0, result.err
    assert "Limits: 4 clips that move" in result.out
    assert "Look also at few steps" in result.out
    folder = tmp_path / "out/tiny-diagnosis"
    assert sorted(path.name for path in folder.iterdir()) == [
        "curve.csv",
        "diagnosis.json",
        "diagnosis.png",
        "index.html",
    ]
    record = json.loads((folder / "diagnosis.json").read_text())
    assert {row["who"] for row in record["rows"]} == {"", "image", "no image", "oracle"}
    assert {row["test"] for row in record["rows"]} == {"autoencoder", "restart", "one step", "fresh", "pipeline"}
    assert record["known_motion"] is True
    assert {"reference clips", "fps", "motion_bucket_id", "step cache", "size", "guidance", "few steps"} <= {
        cause["name"] for cause in record["other_causes"]
    }
    again = unleak("diagnose", "--model", tiny_folder, "--photos", photos, "--clips", 4, *FAST)
    assert again.status == 0, again.err  # a second run has a folder of its own
    assert again.out.splitlines()[-1] == "out/tiny-diagnosis-2/index.html"


def test_a_mask_is_where_all_clips_move(unleak, photos, tmp_path, monkeypatch):
    from tests.tiny.animate_anything import tiny_animate_anything

    monkeypatch.chdir(tmp_path)
    tiny_animate_anything().save_pretrained("model")
    half = np.zeros((16, 16), np.uint8)
    half[:, 8:] = 255
    Image.fromarray(half).save("mask.png")
    small = ("--steps", 2, "--start", "0.9T", "--seeds", 1, "--size", "16x16", "--num-frames", 4, "--quiet")
    asked = ("diagnose", "--model", "model", "--photos", photos, "--clips", 1, "--prompt", "a dog", *small)
    kept = []
    for name, mask in (("all", ()), ("half", ("--mask", "mask.png"))):
        result = unleak(*asked, *mask, "--out", name)
        assert result.status == 0, result.err
        record = json.loads((tmp_path / name / "diagnosis.json").read_text())
        assert record.get("mask") == (mask[1] if mask else None)
        kept.append({row["test"]: row["amount"] for row in record["rows"] if row["who"] == "image"})
    for test in ("restart", "fresh", "pipeline"):
        assert kept[0][test] != kept[1][test], test


def test_videos_are_enough(unleak, tiny_folder, clips, tmp_path):
    out = tmp_path / "found"
    result = unleak(*("diagnose", "--model", tiny_folder, "--videos", clips, "--fps", 7, *FAST, "--out", out, "--json"))
    assert result.status == 0, result.err
    record = json.loads(result.out)
    assert record["verdict"]["label"] == "undecided"
    assert len(record["clips"]["motion"]) == 2
    assert "oracle" not in {row["who"] for row in record["rows"]}


def test_quick_is_quick_and_a_photo_is_enough(unleak, tiny_folder, photos, tmp_path):
    small = ("--size", "32x32", "--num-frames", 3, "--quiet", "--out", tmp_path / "out")
    result = unleak("diagnose", "--model", tiny_folder, "--photos", photos / "a.png", "--quick", *small, "--json")
    assert result.status == 0, result.err
    record = json.loads(result.out)
    assert {row["test"] for row in record["rows"]} == {"autoencoder", "restart"}
    assert (len(record["clips"]["motion"]), len(record["starts"]), record["steps"]) == (4, 3, 10)
    assert str(tmp_path) not in (tmp_path / "out/index.html").read_text()


def test_a_large_seed_has_a_noise_of_its_own(unleak, tiny_folder, photos, tmp_path):
    kept = []
    for seed in (20_000_000, 2**62):
        asked = (
            "--photos",
            photos,
            "--quick",
            "--clips",
            1,
            "--start",
            "0.9T",
            "--seed",
            seed,
            "--out",
            tmp_path / str(seed),
        )
        result = unleak("diagnose", "--model", tiny_folder, *asked, "--size", "32x32", "--num-frames", 3, "--json")
        assert result.status == 0, result.err
        kept.append([row["kept"] for row in json.loads(result.out)["rows"] if row["test"] == "restart"])
    assert kept[0] != kept[1]


def test_progress_is_said_at_once(unleak, tiny_folder, photos, tmp_path):
    asked = ("--photos", photos, "--quick", "--clips", 1, "--start", "0.9T", "--out", tmp_path / "out")
    result = unleak("diagnose", "--model", tiny_folder, *asked, "--size", "32x32", "--num-frames", 3)
    assert result.status == 0, result.err
    assert result.err.splitlines()[0] == "diagnosing tiny on 1 clips from 1 noise levels"
    assert "4 videos" in result.err  # one there and back, one of each who


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "give --videos DIR .* or --photos DIR"),
        (("--videos", "clips", "--photos", "."), "one of them"),
        (("--videos", "none"), "none: no such file"),
        (("--photos", "none"), "none: no such file or folder"),
        (("--photos", "empty"), "empty: no images in it"),
        (("--photos", ".", "--start", "0.9"), "start 0.9 is ambiguous"),
        (("--photos", ".", "--start", "0.9T,0.9T"), "0.9T is given twice"),
        (("--photos", ".", "--start", "sigma=1e6"), "outside this VE process"),
        (("--photos", ".", "--start", " "), "--start.*it is empty"),
        (("--photos", ".", "--size", "33x32"), "multiples of"),
        (("--photos", ".", "--mask", "mask.png"), "takes no motion mask"),
        (("--photos", ".", "--lora", "no.safetensors"), "LoRA no.safetensors: no such file"),
        (("--photos", ".", "--offload", "model", "--device", "cpu"), "it spares the memory of an accelerator"),
        (("--photos", ".", "--vae-tiling"), "cannot decode in tiles"),
        (("--photos", ".", "--negative-prompt", "fog"), "--negative-prompt"),
        (("--photos", ".", "--model", "cogvideox-5b-i2v"), "cannot be diagnosed"),
        (("--photos", ".", "--out", "taken"), "holds files of others"),
    ],
)
def test_bad_input_is_told_in_one_line(refused, tmp_path, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    Image.new("L", (8, 8), 255).save("mask.png")
    refused("diagnose", *arguments, reasons=[reason], files={"taken/mine.txt": b"x"})


def test_a_video_that_is_none_is_skipped_and_said(unleak, tiny_folder, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    result = unleak("diagnose", "--model", tiny_folder, "--videos", tmp_path / "bad.mp4", *FAST)
    assert (result.status, result.out) == (2, "")
    assert "none of the videos can be used" in result.err
