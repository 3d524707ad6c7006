import json
import os
import shlex

import pytest
import torch

from unleak.data.video import read_video
from unleak.zoo import hub


@pytest.fixture
def sweep(unleak, tiny_folder, tmp_path, monkeypatch):
    """`unleak sweep` with the tiny model, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: unleak("sweep", "--model", tiny_folder, "--size", "32x16", "--steps", 2, *arguments)


def test_a_photo_becomes_a_page_and_all_it_shows(sweep, photo, tmp_path):
    result = sweep(photo, "--start", "1.0T,sigma=50", "--seed", 4, "--fps", 5, "--num-frames", 3)
    assert (result.status, result.out) == (0, "out/photo-sweep/index.html\n"), result.err
    assert "tiny: 2 starts; 2 steps; seed 4; init standard" in result.err
    folder = tmp_path / "out/photo-sweep"
    files = ["index.html", "sheet.png", "start-1.0T.mp4", "start-sigma=50.mp4", "sweep.json"]
    assert sorted(path.name for path in folder.iterdir()) == files
    clip = read_video(folder / "start-1.0T.mp4")
    assert (clip.frames.shape, clip.fps) == ((3, 16, 32, 3), 5)
    record = json.loads((folder / "sweep.json").read_text())
    assert [run["sigmas"][0] for run in record["runs"]] == pytest.approx([700, 50])
    assert [len(run["sigmas"]) for run in record["runs"]] == [3, 3]
    assert (record["seed"], record["init"], record["mode"]) == (4, "standard", "auto")
    assert record["settings"]["num_inference_steps"] == 2
    assert {"unleak", "torch", "diffusers", "opencv"} < record["versions"].keys()
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert "<h1>photo.png: motion against start</h1>" in text
    assert "--num-frames 3 --fps 5 --steps 2 --size 32x16 --seed 4" in text


def test_the_video_of_a_start_is_that_of_generate_and_the_command_told_makes_it_again(
    sweep, unleak, generate, photo, tmp_path
):
    asked = ["--start", "sigma=50", "--seed", 4, "--init", "unit", "--mode", "truncate"]
    assert sweep(photo, *asked, "--fix", "condition-noise=0.4").status == 0
    video = tmp_path / "out/photo-sweep/start-sigma=50.mp4"
    small = ["--size", "32x16", "--steps", 2]
    assert generate(photo, *asked, "--fix", "condition-noise=0.4", *small, "--out", "one").status == 0
    assert (tmp_path / "one/photo.mp4").read_bytes() == video.read_bytes()
    record = json.loads((tmp_path / "out/photo-sweep/sweep.json").read_text())
    again = shlex.split(record["reproduce"])
    assert again[:2] == ["unleak", "sweep"]
    assert unleak(*again[1:], "--out", "again", "--quiet").status == 0
    assert (tmp_path / "again/start-sigma=50.mp4").read_bytes() == video.read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--start", "1.0T,sigma=1e5"], "sigma 100000 lies outside this VE process"),
        (["--start", "1.0T,0.94"], "start 0.94 is ambiguous: 0.94T or sigma=0.94?"),
        (["--start", "soon"], "start 'soon' is not understood"),
        (["--start", ","], "one start or more"),
        (["--init", "analytic"], "no moments for tiny yet"),
        (["--size", "17x16"], "multiples of 16"),
        (
            ["--num-frames", "1000000000"],
            "'--num-frames': 1000000000 is not a whole number from 2 to 10000",
        ),
        (["--steps", "1000000000"], "'--steps': 1000000000 is not a whole number from 1 to 10000"),
    ],
)
def test_what_cannot_be_had_is_told_in_one_line_before_a_model_is_loaded(
    sweep, photo, tmp_path, monkeypatch, options, message
):
    monkeypatch.setattr("unleak.zoo.hub.load", None)
    result = sweep(photo, *options)
    assert (result.status, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_two_names_of_one_level_are_refused_before_anything_is_run(sweep, photo, tmp_path, monkeypatch):
    monkeypatch.setattr("unleak.animate.sample.sample", None)
    result = sweep(photo, "--start", "1.0T,sigma=700", "--quiet")
    assert (result.status, result.err.count("\n")) == (2, 1)
    assert "starts 1.0T and sigma=700 are the same level" in result.err
    assert list(tmp_path.glob("out/*")) == []


def test_an_existing_folder_is_kept_and_the_new_one_numbered_or_replaced_if_asked(sweep, photo, tmp_path, monkeypatch):
    assert sweep(photo, "--start", "1.0T").status == 0
    with monkeypatch.context() as patch:
        patch.setattr("unleak.zoo.hub.load", None)
        planned = sweep(photo, "--start", "sigma=50", "--dry-run")
        assert planned.out == f"{photo} -> out/photo-sweep-2/index.html\n"
        others = sweep(photo, "--start", "sigma=50", "--out", ".", "--overwrite")
        assert others.err == "error: . holds files of others (out); choose another folder\n"
    assert sweep(photo, "--start", "sigma=50", "--overwrite").status == 0
    assert sorted(path.name for path in tmp_path.glob("out/*/*.mp4")) == ["start-sigma=50.mp4"]


def test_dry_run_resolves_the_starts_and_writes_nothing(sweep, photo, tmp_path, monkeypatch):
    monkeypatch.setattr("unleak.zoo.hub.load", None)
    result = sweep(photo, "--dry-run", "--json", "--quiet")
    assert (result.status, result.err) == (0, "")
    told = json.loads(result.out)
    assert told["planned"] == "out/photo-sweep/index.html"
    assert [level["fraction"] for level in told["starts"].values()] == pytest.approx([1, 0.94, 0.9, 0.86, 0.82])
    assert not (tmp_path / "out").exists()


def test_too_many_starts_are_refused(refused, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    many = ",".join(f"{k}" for k in range(300, 351))
    refused("sweep", photo, "--start", many, reasons=[r"51 starts; a page shows at most 50: give fewer"])


def test_the_settings_of_many_starts_are_made_once(sweep, photo, tmp_path, monkeypatch):
    from unleak.animate.settings import Settings

    made, make = [], Settings.for_model.__func__
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Settings, "for_model", classmethod(lambda cls, *a, **b: made.append(1) or make(cls, *a, **b)))
    result = sweep(photo, "--start", "0.9T,0.8T,0.7T", "--dry-run", "--json")
    assert result.status == 0
    assert list(json.loads(result.out)["starts"]) == ["0.9T", "0.8T", "0.7T"]
    assert len(made) == 1


def test_what_is_not_installed_is_told_before_a_model_is_loaded(sweep, photo, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("unleak.measure.motion.import_module", missing)
    monkeypatch.setattr("unleak.zoo.hub.load", None)
    result = sweep(photo)
    assert result.status == 2
    assert "error: measuring motion needs cv2, which is not installed: pip install 'unleak[evaluate]'\n" in result.err


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("unet.forward", "out of memory on cpu; next, try --num-frames 3; after that --size 16x16"),
        ("vae.decode", "out of memory on cpu; next, try --set decode_chunk_size=1; after that --num-frames 3"),
        (None, "out of memory on cpu while loading tiny; next, try --num-frames 3; after that --size 16x16"),
    ],
)
def test_out_of_memory_names_the_next_thing_to_try(sweep, photo, tmp_path, monkeypatch, part, message):
    def exhausted(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    def loaded(*args, **kwargs):
        pipe = load(*args, **kwargs)
        name, method = part.split(".")
        setattr(getattr(pipe, name), method, exhausted)
        return pipe

    load = hub.load
    monkeypatch.setattr(hub, "load", loaded if part else exhausted)
    result = sweep(photo, "--start", "sigma=50", "--quiet")
    assert (result.status, result.err.count("\n")) == (2, 1)
    assert message in result.err
    assert not list(tmp_path.glob("out/*"))


def test_a_damaged_photo_is_one_line(sweep, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    result = sweep("bad.png")
    assert (result.status, result.err.count("\n")) == (2, 1)
    assert "bad.png: not an image" in result.err


def test_a_photo_whose_name_is_no_text_loses_no_work(sweep, photo, tmp_path):
    odd = os.fsencode(tmp_path) + b"/caf\xe9.png"
    os.rename(photo, odd)
    result = sweep(os.fsdecode(odd), "--start", "sigma=50", "--out", "page")
    assert result.status == 0, result.err
    text = (tmp_path / "page/index.html").read_text(encoding="utf-8")
    assert "<h1>caf\\udce9.png: motion against start</h1>" in text
    assert json.loads((tmp_path / "page/sweep.json").read_text())["photo"]["file"] == "caf\\udce9.png"


def test_few_steps_are_told_once(unleak, photo, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ("--size", "32x16", "--steps", 2, "--num-frames", 3)
    done = unleak("sweep", photo, "--model", tiny_folder, *small, "--start", "sigma=100,sigma=20", "--out", "page")
    assert done.status == 0, done.err
    assert done.err.count("all 2 steps are run, at new noise levels") == 1
