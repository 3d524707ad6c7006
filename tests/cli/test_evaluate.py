import csv
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tests.evaluate.test_extractors import Means, sha
from unleak.data.video import write_video
from unleak.evaluate import extractors


@pytest.fixture
def run(unleak, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: unleak("evaluate", *arguments)


@pytest.fixture
def videos(tmp_path):
    """Three videos that pan by 0, 1 and 2 px a frame, named after it."""
    wide = np.asarray(Image.effect_noise((40, 12), 90).convert("RGB").resize((160, 48), Image.Resampling.BICUBIC))
    folder = tmp_path / "videos"
    folder.mkdir()
    for speed in range(3):
        frames = np.stack([wide[:, 60 - speed * k :][:, :64] for k in range(5)])
        write_video(frames, folder / f"pan{speed}.mp4", fps=8)
    return folder


@pytest.fixture
def script(tmp_path):
    file = tmp_path / "means.pt"
    torch.jit.save(torch.jit.script(Means()), str(file))
    return file


def test_a_folder_becomes_numbers_and_a_table(run, videos, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for speed in range(3):
        Image.new("RGB", (64, 48), (9, 9, 9)).save(photos / f"pan{speed}.png")
    (tmp_path / "targets.json").write_text(json.dumps({"pan0": 0, "pan1": 30, "pan2": 70}))
    result = run("--videos", videos, "--images", photos, "--target-motion", "targets.json", "--out", "found")
    assert result.status == 0, result.err
    record = json.loads((tmp_path / "found/evaluation.json").read_text())
    scores = [row["motion_score"] for row in record["rows"]]
    assert scores == sorted(scores)
    assert record["summary"]["motion_score"]["value"] == pytest.approx(np.mean(scores))
    expected = np.mean(np.abs(np.array(scores) - [0, 30, 70]))
    assert record["summary"]["ms_err"]["value"] == pytest.approx(expected)
    assert record["summary"]["temporal_consistency"]["value"] < 1
    assert "SSIM" in record["estimators"]["consistency and alignment"]
    assert "[SSIM: no --features were given]" in result.out
    assert "FVD" not in result.out
    rows = list(csv.DictReader((tmp_path / "found/evaluation.csv").open()))
    assert [float(row["motion_score"]) for row in rows] == scores


def test_a_stopped_run_goes_on_and_other_settings_are_told(run, videos, tmp_path, monkeypatch):
    assert run("--videos", videos / "pan0.mp4", "--out", "found").status == 0
    (rows,) = (tmp_path / "found").glob("rows-*.jsonl")
    with rows.open("a") as file:
        file.write('{"name": "half a li')
    measured = []
    module = sys.modules["unleak.evaluate.videos"]
    measure = module.measure_video
    monkeypatch.setattr(
        module, "measure_video", lambda path, *a, **k: measured.append(path.stem) or measure(path, *a, **k)
    )
    assert run("--videos", videos, "--out", "found").status == 0
    assert measured == ["pan1", "pan2"]
    once = json.loads((tmp_path / "found/evaluation.json").read_text())["summary"]
    assert run("--videos", videos, "--out", "found").status == 0
    assert json.loads((tmp_path / "found/evaluation.json").read_text())["summary"] == once
    other = run("--videos", videos, "--out", "found", "--num-frames", 3)
    assert (other.status, other.out) == (2, "")
    assert "other settings" in other.err
    assert run("--videos", videos, "--out", "found", "--num-frames", 3, "--overwrite").status == 0


def test_fvd_and_is_by_their_networks(run, videos, script, tmp_path, monkeypatch):
    refused = run("--videos", videos, "--reference", videos, "--i3d", script, "--out", "a")
    assert (refused.status, "FVD" in refused.out) == (2, False)
    assert "SHA-256" in refused.err

    class Probabilities(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(x.mean(dim=[2, 3, 4]) / 50, dim=1)

    c3d = tmp_path / "c3d.pt"
    torch.jit.save(torch.jit.script(Probabilities()), str(c3d))
    means = lambda file, *, device: extractors.TorchScript(file, sha256=sha(script), device=device)  # noqa: E731
    monkeypatch.setattr(extractors, "i3d", means)
    networks = ("--i3d", script, "--c3d", c3d, "--c3d-sha256", sha(c3d))
    result = run(
        "--videos", videos, "--reference", videos, *networks, "--out", "b", "--preset", "ucf101", "--num-frames", 2
    )
    assert result.status == 0, result.err
    summary = json.loads((tmp_path / "b/evaluation.json").read_text())["summary"]
    assert summary["FVD"]["value"] == pytest.approx(0, abs=1e-6)
    assert "3 videos, the protocol has 2048" in summary["FVD"]["note"]
    assert summary["IS"]["value"] >= 1
    assert "the protocol has 10000" in summary["IS"]["note"]


def test_vbench_finds_videos_by_their_prompts(run, videos, tmp_path):
    (tmp_path / "prompts.txt").write_text("a dog\na cat\na dog\n")
    result = run("--videos", videos, "--prompts", "prompts.txt", "--export", "bench", "--out", "found")
    assert result.status == 0, result.err
    names = sorted(path.name for path in (tmp_path / "bench/videos").iterdir())
    assert names == ["a cat-0.mp4", "a dog-0.mp4", "a dog-1.mp4"]
    assert (tmp_path / "bench/videos/a dog-1.mp4").read_bytes() == (videos / "pan2.mp4").read_bytes()
    info = json.loads((tmp_path / "bench/full_info.json").read_text())
    assert [entry["prompt_en"] for entry in info] == ["a dog", "a cat"]
    assert "dynamic_degree" in info[0]["dimension"]


def test_a_broken_video_is_told_and_the_others_are_measured(run, videos, tmp_path):
    (videos / "broken.mp4").write_bytes(b"nothing")
    result = run("--videos", videos, "--out", "found")
    assert result.status == 0
    assert "skipped" in result.err
    record = json.loads((tmp_path / "found/evaluation.json").read_text())
    assert (record["videos"], len(record["failed"])) == (3, 1)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--videos", "none"), "none: no such file"),
        (("--videos", "videos", "--i3d", "means.pt"), "give --reference DIR"),
        (("--videos", "videos", "--reference", "videos", "--i3d", "no.pt"), "no.pt: no such file"),
        (("--videos", "videos", "--c3d", "means.pt"), "--c3d-sha256 together"),
        (("--videos", "videos", "--images", "empty"), "empty: no images in it"),
        (("--videos", "videos", "--prompts", "no.txt"), "no.txt: cannot be read"),
        (("--videos", "videos", "--prompts", "one.txt"), "1 lines for 3 videos"),
        (("--videos", "videos", "--prompts", "one.json"), "nothing for the video pan0"),
        (("--videos", "videos", "--target-motion", "much"), "give a motion score"),
        (("--videos", "videos", "--target-motion", "-3"), "numbers of 0 or more"),
        (("--videos", "videos", "--export", "bench"), "give --prompts FILE"),
        (("--videos", "videos", "--size", "5"), "--size 5: give width and height"),
        (("--videos", "videos", "--out", "taken"), "holds files of others"),
    ],
)
def test_bad_input_is_told_in_one_line(refused, videos, script, tmp_path, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    files = {"one.txt": b"a dog\n", "one.json": b'{"pan9": "a dog"}', "taken/mine": b"x"}
    refused("evaluate", *arguments, reasons=[reason], files=files)
