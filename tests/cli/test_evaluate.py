import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.files import sha
from unleak.data.video import write_video
from unleak.measure import extractors


@pytest.fixture(autouse=True)
def own_list(monkeypatch):
    """Metrics that a test registers are gone after it."""
    from unleak.measure import registry

    registry.metrics()
    monkeypatch.setattr(registry, "_METRICS", dict(registry._METRICS))


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


class Features(torch.nn.Module):
    """The mean of each channel, called as I3D is."""

    def forward(self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool) -> torch.Tensor:
        return x.mean(dim=[2, 3, 4])


@pytest.fixture
def script(tmp_path):
    file = tmp_path / "means.pt"
    torch.jit.save(torch.jit.script(Features()), str(file))
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
    assert "SSIM" in record["estimators"]["features"]
    assert "[SSIM: no --features were given]" in result.out
    assert "FVD" not in result.out
    rows = list(csv.DictReader((tmp_path / "found/evaluation.csv").open()))
    assert [float(row["motion_score"]) for row in rows] == scores


def test_a_photo_of_another_shape_is_compared_as_the_model_saw_it(run, videos, tmp_path):
    """Cropped at its sides, as it is for the model, and not squeezed."""
    photo = Image.effect_noise((40, 12), 90).convert("RGB").resize((160, 48), Image.Resampling.BICUBIC)
    photos, one = tmp_path / "photos", tmp_path / "one"
    for folder in (photos, one):
        folder.mkdir()
    photo.save(photos / "a.png")
    write_video(np.stack([np.asarray(photo)[:, 48:112]] * 3), one / "a.mp4", fps=8)
    assert run("--videos", one, "--images", photos, "--out", "found").status == 0
    summary = json.loads((tmp_path / "found/evaluation.json").read_text())["summary"]
    assert summary["image_alignment"]["value"] > 0.95
    assert summary["first_frame_psnr"]["value"] > 30


def test_a_stopped_run_goes_on_and_other_settings_are_told(run, videos, tmp_path, monkeypatch):
    assert run("--videos", videos / "pan0.mp4", "--out", "found").status == 0
    (rows,) = (tmp_path / "found").glob("rows-*.jsonl")
    with rows.open("a") as file:
        file.write('{"name": "half a li')
    measured = []
    module = sys.modules["unleak.study.evaluate.run"]
    measure = module.measure_video
    monkeypatch.setattr(
        module, "measure_video", lambda item, *a, **k: measured.append(item.path.stem) or measure(item, *a, **k)
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
    monkeypatch.setattr(extractors, "I3D_SHA256", sha(script))
    networks = ("--i3d", script, "--c3d", c3d, "--c3d-sha256", sha(c3d))
    result = run(
        *("--videos", videos, "--reference", videos, *networks, "--out", "b", "--preset", "ucf101"),
        *("--num-frames", 2, "--fps", 8),
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
    assert result.status == 2
    assert result.err.count("error: skipped") == 1
    assert f"{videos / 'broken.mp4'}" in result.err
    record = json.loads((tmp_path / "found/evaluation.json").read_text())
    assert (record["videos"], len(record["failed"])) == (3, 1)
    (videos / "broken.mp4").unlink()
    assert run("--videos", videos, "--out", "found").status == 0


def test_overwrite_deletes_what_an_evaluation_wrote_and_nothing_else(run, videos, tmp_path):
    out = tmp_path / "found"
    out.mkdir()
    for name in ("rows-2024.csv", "rows-of-mine.jsonl", "rows-0123456789abcdef-0.txt", "evaluation.csv"):
        (out / name).write_text("mine")
        result = run("--videos", videos, "--out", out, "--overwrite")
        assert (result.status, result.out) == (2, "")
        assert f"holds files of others ({name})" in result.err
        assert (out / name).read_text() == "mine"
        (out / name).unlink()
    assert run("--videos", videos / "pan0.mp4", "--out", out).status == 0
    assert run("--videos", videos / "pan0.mp4", "--out", out, "--num-frames", 3, "--overwrite").status == 0
    assert len(list(out.glob("rows-*"))) == 1


def test_two_photos_of_one_name_are_refused(run, videos, tmp_path):
    """Nobody knows which of them the video was made of."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for speed in range(3):
        Image.new("RGB", (64, 48), (9, 9, 9)).save(photos / f"pan{speed}.png")
    Image.new("RGB", (64, 48)).save(photos / "pan1.jpg")
    result = run("--videos", videos, "--images", photos, "--out", "found")
    assert (result.status, result.out) == (2, "")
    assert "pan1.jpg and pan1.png are both called pan1" in result.err
    assert not (tmp_path / "found").exists()
    Image.new("RGB", (64, 48)).save(photos / "other.jpg")  # a name that no video has is nobody's business
    Image.new("RGB", (64, 48)).save(photos / "other.png")
    (photos / "pan1.jpg").unlink()
    assert run("--videos", videos, "--images", photos, "--out", "found").status == 0


def test_bad_items_are_named_and_the_others_are_measured(run, videos, tmp_path):
    """One frame, a photo that is none, a pipe, frames of more memory than a worker has."""
    photos = tmp_path / "photos"
    photos.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8)
    for name in ("still", "lost", "small"):
        write_video(noise, videos / f"{name}.mp4", fps=8)
    write_video(noise[:1], videos / "still.mp4", fps=8)
    write_video(noise[:, :8, :8], videos / "small.mp4", fps=8)
    for path in videos.iterdir():
        Image.new("RGB", (64, 48), (9, 9, 9)).save(photos / f"{path.stem}.png")
    (photos / "lost.png").write_bytes(b"no picture")
    result = run("--videos", videos, "--images", photos, "--out", "found")
    assert result.status == 2
    told = [line for line in result.err.splitlines() if line.startswith("error: skipped")]
    assert any("still.mp4: 1 frame; metrics need two or more" in line for line in told)
    assert any("lost.png" in line for line in told)
    record = json.loads((tmp_path / "found/evaluation.json").read_text())
    measured = {row["file"].rpartition("/")[2] for row in record["rows"]}
    assert {"pan0.mp4", "pan1.mp4", "pan2.mp4"} <= measured
    assert len(measured) + len(record["failed"]) == 6
    assert len(record["failed"]) == len(told)
    assert "could not be measured" in (tmp_path / "found/index.html").read_text()


def test_a_metric_of_your_own(run, videos, tmp_path):
    toy = Path(__file__).parents[2] / "examples/extend/metric.py"
    result = run("--videos", videos, "--extend", toy, "--metrics", "loop_gap,flicker", "--out", "found")
    assert result.status == 0, result.err
    assert "loop gap (grey levels): " in result.out
    summary = json.loads((tmp_path / "found/evaluation.json").read_text())["summary"]
    assert set(summary) == {"loop_gap", "flicker"}
    unknown = run("--videos", videos, "--metrics", "loud", "--out", "other")
    assert (unknown.status, unknown.out) == (2, "")
    assert "metric 'loud' is unknown; give some of motion_score" in unknown.err


def test_the_same_from_python(videos, tmp_path):
    import unleak

    found = unleak.evaluate(videos, out=tmp_path / "found", metrics=["motion_score"])
    assert found.summary["motion_score"]["groups"] == 3
    assert found.failed == []
    assert (tmp_path / "found/evaluation.json").exists()
    with pytest.raises(ValueError, match="no such file or folder"):
        unleak.evaluate(tmp_path / "none", out=tmp_path / "other")


def test_another_network_in_the_place_of_i3d_gives_no_fvd(run, videos, tmp_path):
    file = tmp_path / "other.pt"
    torch.jit.save(torch.jit.script(Features()), str(file))
    asked = ("--videos", videos, "--reference", videos, "--i3d", file, "--out", "found")
    refused = run(*asked)
    assert (refused.status, len(refused.err.splitlines())) == (2, 1)
    assert sha(file) in refused.err
    assert extractors.I3D_SHA256 in refused.err
    result = run(*asked, "--i3d-sha256", sha(file))
    assert result.status == 0, result.err
    name = f"Frechet distance by other.pt {sha(file)[:12]}"
    assert f"{name}: " in result.out
    assert "FVD" not in result.out
    record = json.loads((tmp_path / "found/evaluation.json").read_text())
    assert record["summary"][name]["value"] == pytest.approx(0, abs=1e-6)
    assert "FVD" not in record["summary"]


def test_what_a_network_cannot_take_is_told_in_one_line(run, videos, tmp_path):
    class Long(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(1, 3, 99)

    file = tmp_path / "long.pt"
    torch.jit.save(torch.jit.script(Long()), str(file))
    result = run("--videos", videos, "--c3d", file, "--c3d-sha256", sha(file), "--out", "found")
    assert (result.status, result.out) == (2, "")
    assert result.err.count("cannot take 5 frames of 64x48") == 3  # each video is named
    assert result.err.splitlines()[-1] == "error: none of the videos can be measured; see the reasons above"


def test_features_of_another_network_at_the_same_place_are_not_taken(run, videos, tmp_path):
    class One(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(x.mean(dim=[2, 3, 4]), dim=1)

    class Other(One):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(-x.mean(dim=[2, 3, 4]), dim=1)

    file, results = tmp_path / "c3d.pt", []
    for network in (One(), Other()):
        torch.jit.save(torch.jit.script(network), str(file))
        results.append(run("--videos", videos, "--c3d", file, "--c3d-sha256", sha(file), "--out", "found"))
    assert [result.status for result in results] == [0, 2]
    assert "other settings" in results[1].err


@pytest.mark.slow
def test_other_packages_are_asked_and_named(run, videos, tmp_path, packages):
    weights, photos = tmp_path / "weights.pt", tmp_path / "photos"
    torch.save({"gain": torch.tensor(2.0)}, weights)
    photos.mkdir()
    for speed in range(3):
        Image.new("RGB", (64, 48), (9, 9, speed)).save(photos / f"pan{speed}.png")
    (tmp_path / "prompts.txt").write_text("a dog\na cat\na bird\n")
    asked = [
        *("--videos", videos, "--reference", videos, "--images", photos, "--prompts", "prompts.txt"),
        *("--cd-fvd", f"i3d={weights}", "--torch-fidelity", weights, "--out", "found"),
    ]
    short = run(*asked)
    assert (short.status, short.out) == (2, "")
    assert "takes 9 or more frames and a video has 5: give --num-frames 16" in short.err
    for speed in range(3):
        frames = np.full((9, 48, 64, 3), 40 * speed, np.uint8)
        write_video(frames, videos / f"pan{speed}.mp4", fps=8)
    result = run(*asked, "--vbench", "dynamic_degree, i2v_subject", "--vbench-python", sys.executable, "--overwrite")
    assert result.status == 0, result.err
    record = json.loads((tmp_path / "found/evaluation.json").read_text())
    found, made_by = record["summary"], record["estimators"]
    assert found["cd-fvd (I3D)"]["value"] == pytest.approx(0, abs=1e-3)
    assert found["FID of frames"]["value"] == pytest.approx(0)
    assert (found["KID of frames"]["groups"], found["KID of frames"]["of"]) == (27, "frames")
    assert found["vbench dynamic_degree"]["groups"] == found["vbench i2v_subject"]["groups"] == 3
    assert made_by["cd-fvd (I3D)"].startswith("cd-fvd 0.1.1, i3d, weights weights.pt ")
    assert made_by["FID of frames"].startswith("torch-fidelity 0.4.0, inception-v3-compat, weights")
    assert made_by["vbench dynamic_degree"] == "vbench 0.1.5"
    for line in ("FID of frames [torch-fidelity 0.4.0, ", "vbench dynamic degree [vbench 0.1.5]", "cd-fvd (I3D): "):
        assert line in result.out
    assert "dynamic degree (share of videos) [OpenCV DIS" in result.out  # not to be taken for VBench's
    assert "FVD" not in result.out
    failed = run(*asked, "--vbench", "imaging_quality")
    assert failed.status == 2
    assert "vbench 0.1.5: vbench failed: RuntimeError: no weights" in failed.err
    assert (
        json.loads((tmp_path / "found/evaluation.json").read_text())["summary"]["cd-fvd (I3D)"] == found["cd-fvd (I3D)"]
    )


def test_the_protocol_of_the_paper_from_a_dataset_to_its_numbers(unleak, tiny_folder, script, tmp_path, monkeypatch):
    """The commands of the documentation, in their order, on a dataset of the same layout."""
    monkeypatch.chdir(tmp_path)
    for shade, name in enumerate(("ApplyEyeMakeup", "TaiChi", "YoYo")):
        folder = tmp_path / "UCF-101" / name
        folder.mkdir(parents=True)
        for k in range(3):
            frames = np.random.default_rng(9 * shade + k).integers(0, 256, (5 if k else 2, 24, 32, 3), dtype=np.uint8)
            write_video(frames, folder / f"v_{name}_g01_c0{k}.mp4", fps=4)
    protocol = ("--preset", "ucf101", "--reference", "UCF-101")
    prepared = unleak("evaluate", *protocol, "--prepare", "asked")
    assert (prepared.status, prepared.out) == (0, "asked/list.jsonl\n"), prepared.err
    small = ("--size", "16x16", "--steps", 1, "--num-frames", 3, "--quiet")
    made = unleak("generate", "asked/list.jsonl", "--model", tiny_folder, *small, "--out", "made")
    assert made.status == 0, made.err
    seeds = [json.loads(file.read_text())["settings"]["seed"] for file in sorted((tmp_path / "made").glob("*.json"))]
    assert sorted(seeds) == list(range(9))

    class Probabilities(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(x.mean(dim=[2, 3, 4]) / 9, dim=1)

    torch.jit.save(torch.jit.script(Probabilities()), "c3d.pt")
    monkeypatch.setattr(extractors, "I3D_SHA256", sha(script))
    result = unleak(
        *("evaluate", *protocol, "--videos", "made", "--images", "asked/photos", "--prompts", "asked/list.jsonl"),
        *("--i3d", script, "--c3d", "c3d.pt", "--c3d-sha256", sha(tmp_path / "c3d.pt"), "--num-frames", 3),
        *("--out", "found", "--json"),
    )
    assert result.status == 0, result.err
    assert "3 real clips are too short for 3 frames" in result.err
    record = json.loads(result.out)
    assert (record["videos"], record["references"]) == (9, 6)
    assert {"FVD", "IS", "image_alignment"} <= set(record["summary"])
    rows = [row for row in record["rows"] if not row["reference"]]
    assert {row["frames"] for row in rows} == {3}  # a model's frames are taken as they are, whatever their rate
    assert {row["fps"] for row in record["rows"] if row["reference"]} == {3}
    # In an order of all categories, the same for both: the first 2,048 are to be no single class.
    assert [row["file"] for row in rows] != sorted(row["file"] for row in rows)
    other = unleak("evaluate", *protocol, "--videos", "made", "--num-frames", 99, "--out", "other")
    assert (other.status, other.out) == (2, "")
    assert "none of 9 clips has 99 frames at 3 Hz" in other.err


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
        ((), "give --videos DIR"),
        (("--prepare", "asked"), "--prepare goes with --preset ucf101 and --reference"),
        (("--prepare", "asked", "--preset", "ucf101"), "--prepare goes with --preset ucf101 and --reference"),
        (("--prepare", "asked", "--preset", "ucf101", "--reference", "videos"), "not named as clips of UCF101 are"),
        (
            ("--prepare", "asked", "--preset", "ucf101", "--reference", "videos", "--videos", "videos"),
            "has no use for --videos",
        ),
        (("--prepare", "asked", "--preset", "ucf101", "--reference", "videos", "--fps", 3), "has no use for --fps"),
        (("--videos", "videos", "--i3d-sha256", "ab"), "--i3d-sha256 is the hash of the file"),
        (("--videos", "videos", "--reference", "videos", "--cd-fvd", "i3d"), "give i3d=FILE or videomae=FILE"),
        (("--videos", "videos", "--reference", "videos", "--cd-fvd", "c3d=x"), "give i3d=FILE or videomae=FILE"),
        (("--videos", "videos", "--reference", "videos", "--cd-fvd", "i3d=no.pt"), "no.pt: no such file"),
        (("--videos", "videos", "--cd-fvd", "i3d=means.pt"), "give --reference DIR"),
        (("--videos", "videos", "--torch-fidelity", "no.pt"), "no.pt: no such file"),
        (("--videos", "videos", "--vbench", "colour"), "--vbench colour: give some of"),
        (("--videos", "videos", "--vbench", "dynamic_degree", "--vbench-python", "no"), "no: cannot be run"),
        (("--videos", "videos", "--vbench-python", "no"), "is for --vbench"),
        (("--videos", "videos", "--prompts", "list.jsonl"), "no prompt for the video pan0"),
        (("--videos", "videos", "--size", "5"), "--size.*5: give width and height"),
        (("--videos", "videos", "--out", "taken"), "holds files of others"),
    ],
)
def test_bad_input_is_told_in_one_line(refused, videos, script, tmp_path, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    files = {"one.txt": b"a dog\n", "one.json": b'{"pan9": "a dog"}', "taken/mine": b"x", "a.png": b""}
    files["list.jsonl"] = b'{"dir": "a.png", "text": "a dog"}'
    refused("evaluate", *arguments, reasons=[reason], files=files)
