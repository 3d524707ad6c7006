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


def test_photos_become_a_verdict_a_picture_and_tables(unleak, tiny_folder, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = unleak("diagnose", "--model", tiny_folder, "--photos", photos, "--clips", 4, *FAST)
    assert result.status == 0, result.err
    assert "Limits: 4 clips that move" in result.out
    assert "Look also at few steps" in result.out
    folder = tmp_path / "out/tiny-diagnosis"
    assert sorted(path.name for path in folder.iterdir()) == ["curve.csv", "diagnosis.json", "diagnosis.png"]
    record = json.loads((folder / "diagnosis.json").read_text())
    assert {row["who"] for row in record["rows"]} == {"", "image", "no image", "oracle"}
    assert {row["test"] for row in record["rows"]} == {"autoencoder", "restart", "one step", "fresh", "pipeline"}
    assert record["known_motion"] is True
    assert {"reference clips", "fps", "motion_bucket_id", "step cache", "size", "guidance", "few steps"} <= {
        cause["name"] for cause in record["other_causes"]
    }
    again = unleak("diagnose", "--model", tiny_folder, "--photos", photos, "--clips", 4, *FAST)
    assert (again.status, again.out) == (2, "")
    assert "exists; give --overwrite" in again.err


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


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "give --videos DIR .* or --photos DIR"),
        (("--videos", "clips", "--photos", "."), "one of them"),
        (("--videos", "none"), "none: no such file"),
        (("--photos", "none"), "none: no such folder"),
        (("--photos", "empty"), "no photo in empty"),
        (("--photos", ".", "--start", "0.9"), "start 0.9 is ambiguous"),
        (("--photos", ".", "--start", "0.9T,0.9T"), "0.9T is given twice"),
        (("--photos", ".", "--start", "sigma=1e6"), "outside this VE process"),
        (("--photos", ".", "--start", " "), "--start is empty"),
        (("--photos", ".", "--size", "33x32"), "multiples of"),
        (("--photos", ".", "--mask", "mask.png"), "takes no motion mask"),
        (("--photos", ".", "--lora", "no.safetensors"), "--lora no.safetensors: no such file"),
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
