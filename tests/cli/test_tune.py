import json
import os
import shlex

import numpy as np
import pytest
from PIL import Image

FAST = ("--size", "32x16", "--num-frames", 3, "--steps", 3, "--preview-steps", 2, "--lowest", "sigma=40")


@pytest.fixture
def tune(unleak, tiny_folder, tmp_path, monkeypatch):
    """`unleak tune` with the tiny model, in an empty folder; its previews have two steps, its video three."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: unleak("tune", "--model", tiny_folder, *FAST, *arguments)


def test_a_photo_becomes_a_start_a_page_and_the_video_of_generate(tune, unleak, tiny_folder, photo, tmp_path):
    given = ("--seed", 4, "--fps", 5, "--budget", 3, "--init", "unit")
    result = tune(photo, *given, "--target-motion", "0.01px/s", "--fidelity", "0dB", "--json")
    assert result.status == 0, result.err
    (told,) = json.loads(result.out)["tuned"]
    folder = tmp_path / "out/photo-tune"
    assert told["page"] == "out/photo-tune/index.html"
    assert [run["start"]["asked"] for run in told["runs"]] == ["1.0T", "1.0T in full"]  # random weights move
    record = json.loads((folder / "tune.json").read_text())
    assert sorted(path.name for path in folder.iterdir()) == record.pop("files")
    assert told == {"page": "out/photo-tune/index.html", **record}
    assert record["chosen"]["reached"]
    assert (record["budget"], record["preview_steps"], record["seed"]) == (3, 2, 4)
    assert [len(run["sigmas"]) for run in record["runs"]] == [3, 4]
    assert record["settings"]["num_inference_steps"] == 3
    same = ("--size", "32x16", "--num-frames", 3, "--steps", 3, "--seed", 4, "--fps", 5, "--init", "unit")
    assert unleak("generate", photo, "--model", tiny_folder, *same, "--start", "1.0T", "--out", "one").status == 0
    assert (tmp_path / "one/photo.mp4").read_bytes() == (folder / "chosen.mp4").read_bytes()


def test_each_photo_has_a_start_of_its_own_and_a_bad_one_stops_no_other(tune, tmp_path):
    for k, name in enumerate(("a.png", "b.png")):
        noise = np.random.default_rng(k).integers(0, 256, (16, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / name)
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    result = tune("a.png", "bad.png", "b.png", "--budget", 3, "--target-motion", "900px/frame")
    assert result.status == 2
    lines = result.out.splitlines()
    assert [line for line in lines if line.startswith("out/")] == [f"out/{name}-tune/index.html" for name in "ab"]
    assert sum("is out of reach: no start down to sigma=40 moves that fast" in line for line in lines) == 2
    assert "error: bad.png: not an image" in result.err
    assert "px/frame" in result.err  # the table
    assert result.err.count("chosen") == 2
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["a-tune", "b-tune"]


def test_the_command_told_and_generate_make_the_same_again(tune, unleak, tiny_folder, photo, tmp_path):
    asked = ("--target-motion", "900px/frame", "--fidelity", "0dB", "--budget", 3, "--lowest", "sigma=0.5")
    assert tune(photo, *asked, "--quiet").status == 0
    before = json.loads((tmp_path / "out/photo-tune/tune.json").read_text())
    again = shlex.split(before["reproduce"])
    assert again[:2] == ["unleak", "tune"]
    assert unleak(*again[1:], "--quiet", "--out", "again").status == 0
    after = json.loads((tmp_path / "again/photo-tune/tune.json").read_text())
    assert {**after, "reproduce": ""} == {**before, "reproduce": ""}
    made = (tmp_path / "out/photo-tune/chosen.mp4").read_bytes()
    assert (tmp_path / "again/photo-tune/chosen.mp4").read_bytes() == made
    start = before["chosen"]["start"]
    generated = ("--size", "32x16", "--num-frames", 3, "--steps", 3, "--start", start, "--out", "one")
    assert start != "1.0T"
    assert unleak("generate", photo, "--model", tiny_folder, *generated).status == 0
    assert (tmp_path / "one/photo.mp4").read_bytes() == made


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--target-motion", "8"], r"target motion 8 is ambiguous: 8px/s or 8px/frame\?"),
        (["--target-motion", "fast"], "target motion 'fast': give a speed above 0"),
        (["--target-motion", "0px/s"], "above 0"),
        (["--fidelity", "high"], "fidelity 'high': give the least PSNR"),
        (["--budget", "2"], "--budget"),
        (["--lowest", "0.9"], "start 0.9 is ambiguous"),
        (["--lowest", "sigma=1e6"], "outside this VE process"),
        (["--lowest", " "], "--lowest': it is empty"),
        (["--lowest", "auto"], "start auto is found for each photo"),
        (["--size", "17x16"], "multiples of 16"),
        (["--init", "analytic"], "no moments for tiny yet"),
        (["--out", "file", "--quiet"], "Not a directory"),
    ],
)
def test_bad_input_is_told_in_one_line(tune, refused, tiny_folder, photo, tmp_path, monkeypatch, options, reason):
    monkeypatch.chdir(tmp_path)
    refused("tune", "photo.png", "--model", tiny_folder, *FAST, *options, reasons=[reason], files={"file": b"x"})


def test_no_photo_two_of_one_name_and_a_folder_that_is_there(tune, refused, tiny_folder, photo, tmp_path):
    refused("tune", "none.png", reasons=["none.png: no such file"])
    refused("tune", "bad.png", reasons=["bad.png: not an image"], files={"bad.png": b"x"})
    both = {"a/photo.png": photo.read_bytes(), "b/photo.png": photo.read_bytes()}
    for name, content in both.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(content)
    planned = tune("a/photo.png", "b/photo.png", "--dry-run").out.splitlines()
    assert [line.rpartition(" ")[2] for line in planned] == [f"out/photo-tune{n}/index.html" for n in ("", "-2")]
    taken = {"out/photo-tune/mine.txt": b"x"}
    refused("tune", photo, "--model", tiny_folder, reasons=["holds files of others"], files=taken)


def test_dry_run_resolves_the_lowest_start_and_writes_nothing(tune, photo, tmp_path, monkeypatch):
    monkeypatch.setattr("unleak.zoo.hub.load", None)
    result = tune(photo, "--dry-run", "--json")
    assert result.status == 0
    assert json.loads(result.out)["lowest"] == "sigma=40"
    assert "4 % of the width per second, first frame plain-3dB; at most 6 previews of 2 steps" in result.err
    assert not (tmp_path / "out").exists()


def test_generate_finds_a_start_for_each_photo_and_tells_it(unleak, tiny_folder, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    same = ("generate", photo, "--model", tiny_folder, "--size", "32x16", "--num-frames", 3, "--steps", 2)
    result = unleak(*same, "--start", "auto", "--target-motion", "900px/frame", "--budget", 3, "--out", "auto")
    assert result.status == 0, result.err
    assert "start auto: at most 3 previews of each photo, down to start sigma 40" in result.err
    assert "900px/frame is out of reach" in result.err
    record = json.loads((tmp_path / "auto/photo.json").read_text())
    found = record["auto"]
    assert found["start"] == record["settings"]["start"] == record["start"]["asked"]
    assert found["reason"] in result.err
    assert found["check"].startswith("with all its steps it moves")
    assert [one["start"] for one in found["previews"]][:2] == ["1.0T", "sigma=40"]
    assert unleak(*same, "--start", found["start"], "--out", "one").status == 0
    assert (tmp_path / "one/photo.mp4").read_bytes() == (tmp_path / "auto/photo.mp4").read_bytes()
    planned = unleak(*same, "--start", "auto", "--out", "dry", "--dry-run", "--json")
    assert json.loads(planned.out)["settings"]["start"] == "auto"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--target-motion", "8px/s"], "--target-motion 8px/s: it says what --start auto looks for"),
        (["--start", "0.9T", "--budget", "5"], "--budget 5: it says what --start auto looks for"),
        (["--start", "auto", "--motion", "high"], "motion chooses the start; give motion or start, not both"),
        (["--start", "auto", "--target-motion", "8"], "8px/s or 8px/frame"),
    ],
)
def test_what_generate_cannot_look_for_is_told_in_one_line(
    refused, tiny_folder, photo, tmp_path, monkeypatch, options, reason
):
    monkeypatch.chdir(tmp_path)
    refused("generate", "photo.png", "--model", tiny_folder, *options, reasons=[reason])


def test_a_photo_whose_name_is_no_text_loses_no_work(tune, photo, tmp_path):
    odd = os.fsencode(tmp_path) + b"/caf\xe9.png"
    os.rename(photo, odd)
    result = tune(os.fsdecode(odd), "--budget", 3, "--out", "pages")
    assert result.status == 0, result.err
    (page,) = (tmp_path / "pages").glob("*/index.html")
    assert "caf\\udce9.png: start" in page.read_text(encoding="utf-8")
