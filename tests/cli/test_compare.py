import csv
import json
import re
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from unleak.data.video import read_video
from unleak.report.compare_page import page
from unleak.study.compare.cases import Case
from unleak.study.compare.result import Comparison, Made

SMALL = ("--size", "32x16", "--steps", 2, "--num-frames", 3)


@pytest.fixture
def compare(unleak, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: unleak("compare", "--model", tiny_folder, *SMALL, *arguments)


@pytest.mark.slow
def test_cases_become_a_page_a_table_and_all_videos(compare, unleak, photo, tmp_path):
    other = tmp_path / "other <b>.png"
    Image.effect_noise((40, 40), 60).convert("RGB").save(other)
    cases = [
        *("--case", "plain: start=1.0T"),
        *("--case", "<script>alert(1)</script>: start=sigma=50 init=unit mode=truncate"),
        *("--case", "rivals: low-pass=0.5 guidance=1:2"),
        *("--case", "guidance-interval=sigma=1..sigma=100 condition-noise=0.1"),
    ]
    result = compare(photo, other, "--show", 1, *cases, "--out", "made")
    assert (result.status, result.out) == (0, "made/index.html\n"), result.err
    folder = tmp_path / "made"
    record = json.loads((folder / "compare.json").read_text())
    assert len(record["videos"]) == 4 * 2
    assert sorted(path.name for path in folder.iterdir()) == record["files"]
    assert read_video(folder / record["videos"][0]["file"]).frames.shape == (3, 16, 32, 3)
    plain, started, *_ = record["cases"]
    assert plain["motion_score_more"] is None
    assert started["motion_score_more"]["value"] == pytest.approx(
        started["motion_score"]["value"] - plain["motion_score"]["value"]
    )
    assert plain["motion_score"]["groups"] == 2
    rows = list(csv.DictReader((folder / "compare.csv").open()))
    assert len(rows) == 8
    of_plain = [float(row["motion_score"]) for row in rows if row["case"] == "plain"]
    assert plain["motion_score"]["value"] == pytest.approx(np.mean(of_plain))
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert text.count("<video ") == 4
    assert text.count("Motion along the video") == 1
    for video in record["videos"]:  # what is measured of the motion stays beside the metrics
        assert (
            video["motion"]["score"]
            == video["values"]["motion_score"]
            == pytest.approx(sum(video["motion"]["per_pair"]))
        )
        assert video["camera"]["per_pair"]
        assert video["values"]["camera_speed"] == pytest.approx(video["camera"]["pan"] or 0)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert "other &lt;b&gt;.png" in text
    assert "Content-Security-Policy" in text
    assert "default-src 'none'" in text
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)  # nothing is fetched
    assert "{{" not in text
    again = shlex.split(record["reproduce"])
    assert again[:2] == ["unleak", "compare"]
    assert unleak(*again[1:], "--out", "twice", "--quiet").status == 0
    name = record["videos"][5]["file"]
    assert (tmp_path / "twice" / name).read_bytes() == (folder / name).read_bytes()
    assert compare(photo, "--out", "made", *cases[:2]).out == "made-2/index.html\n"
    assert compare(photo, "--out", "made", *cases[:2], "--overwrite").status == 0


def test_a_case_is_the_video_that_generate_makes(compare, generate, photo, tmp_path):
    assert compare(photo, "--start", "1.0T,sigma=50", "--seed", 4, "--out", "made").status == 0
    for start, name in (("1.0T", "1-start-1.0t"), ("sigma=50", "2-start-sigma-50")):
        assert generate(photo, *SMALL, "--start", start, "--seed", 4, "--out", name).status == 0
        video = tmp_path / f"made/photo1-seed4-{name}.mp4"
        assert (tmp_path / name / "photo.mp4").read_bytes() == video.read_bytes()


def test_a_grid_of_checkpoints_is_a_case_each(compare, photo, tiny_folder, tmp_path):
    (tmp_path / "beta-25").symlink_to(tiny_folder)
    (tmp_path / "beta-100").symlink_to(tiny_folder)
    assert compare(photo, "--models", "beta-25,beta-100", "--out", "grid", "--json").status == 0
    record = json.loads((tmp_path / "grid/compare.json").read_text())
    assert [case["label"] for case in record["cases"]] == ["beta-25", "beta-100"]
    assert record["cases"][1]["motion_score_more"]["value"] == 0  # the same model: the same videos


def test_checkpoints_in_folders_of_one_name_are_told_apart(compare, unleak, photo, tiny_folder, tmp_path):
    """Each with its own weights, and a label that says which."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/last").symlink_to(tiny_folder)
    shutil.copytree(tiny_folder, tmp_path / "b/last")
    weights = next((tmp_path / "b/last/unet").glob("*.safetensors"))
    save_file({name: 0.5 * value for name, value in load_file(weights).items()}, weights)
    assert compare(photo, "--models", "a/last,b/last", "--out", "grid").status == 0
    record = json.loads((tmp_path / "grid/compare.json").read_text())
    assert [case["label"] for case in record["cases"]] == ["a/last", "b/last"]
    for folder, video in zip("ab", record["videos"], strict=True):
        made = unleak("generate", photo, "--model", f"{folder}/last", *SMALL, "--start", "1.0T", "--out", folder)
        assert made.status == 0, made.err
        assert (tmp_path / folder / "photo.mp4").read_bytes() == (tmp_path / "grid" / video["file"]).read_bytes()
    assert len({(tmp_path / "grid" / video["file"]).read_bytes() for video in record["videos"]}) == 2


def test_a_list_with_prompts_and_seeds_and_a_case_with_a_lora(unleak, pipeline_folder, photo, tmp_path, monkeypatch):
    """The videos are those that `generate` makes of the same list."""
    monkeypatch.chdir(tmp_path)
    from diffusers import WanImageToVideoPipeline
    from peft import LoraConfig, get_peft_model_state_dict

    pipe = WanImageToVideoPipeline.from_pretrained(pipeline_folder("wan22"))
    pipe.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    layers = get_peft_model_state_dict(pipe.transformer)
    WanImageToVideoPipeline.save_lora_weights(tmp_path / "style", transformer_lora_layers=layers)
    lora = "style/pytorch_lora_weights.safetensors:9"
    lines = [{"dir": "photo.png", "text": text, "id": name, "seed": k} for k, (name, text) in
             enumerate([("one", "a dog"), ("two", "a cat")])]  # fmt: skip
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    small = ("--size", "32x16", "--num-frames", 5, "--steps", 2, "--set", "max_sequence_length=8")
    cases = ("--case", "plain:", "--case", f"styled: lora={lora}")
    model = ("--model", pipeline_folder("wan22"))
    result = unleak("compare", "list.jsonl", *model, *small, *cases, "--seed", 3, "--out", "page")
    assert result.status == 0, result.err
    record = json.loads((tmp_path / "page/compare.json").read_text())
    assert [photo["prompt"] for photo in record["photos"]] == ["a dog", "a cat"]
    assert [[len(lora["sha256"]) for lora in case["loras"]] for case in record["cases"]] == [[], [64]]
    for label, options in (("plain", ()), ("styled", ("--lora", lora))):
        made = unleak(
            "generate", "list.jsonl", *model, *small, "--start", "1.0T", "--seed", 3, *options, "--out", label
        )
        assert made.status == 0, made.err
    files = {(video["case"], video["photo"]): tmp_path / "page" / video["file"] for video in record["videos"]}
    for case, label in enumerate(("plain", "styled")):
        for k, name in enumerate(("one", "two")):
            assert files[case, k].read_bytes() == (tmp_path / label / f"{name}.mp4").read_bytes()
    assert len({file.read_bytes() for file in files.values()}) == 4
    assert [video["seed"] for video in record["videos"]] == [3, 3, 4, 4]


def test_without_cases_the_fixes_and_rivals_of_the_model_are_compared(unleak, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = unleak("compare", photo, "--dry-run", "--json")
    assert result.status == 0, result.err
    labels = [case["label"] for case in json.loads(result.out)["cases"]]
    assert labels[0] == "plain"
    assert any("Analytic-Init" in label for label in labels)
    assert {"no guidance", "low-pass image", "TimeNoise checkpoint"} <= set(labels)
    assert not (tmp_path / "out").exists()
    result = unleak("compare", photo, "--model", "dynamicrafter-512", "--prompt", "a dog", "--dry-run", "--json")
    assert result.status == 0, result.err
    found = {case["label"]: case["model"] for case in json.loads(result.out)["cases"]}
    assert found["TimeNoise checkpoint"] == "dynamicrafter-512-cil"
    result = unleak("compare", photo, "--model", "svd", "--dry-run", "--json")
    assert "TimeNoise checkpoint" not in result.out  # svd-512-cil makes other videos


@pytest.mark.parametrize(
    ("text", "case"),
    [
        ("start=0.94T", Case("start=0.94T", start="0.94T")),
        ("a: b: start=sigma=20 init=analytic", Case("a: b", start="sigma=20", init="analytic")),
        ("mine:", Case("mine")),
        ("g: guidance-interval=..sigma=9", Case("g", fixes=("guidance-interval=..sigma=9",))),
        ("s: steps=7 model=svd", Case("s", steps=7, model="svd")),
        ("two: low-pass=0.25:0.1 compress", Case("two", fixes=("low-pass=0.25:0.1", "compress"))),
    ],
)
def test_the_grammar_of_a_case(text, case):
    assert Case.parse(text) == case


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            ("--case", "speed=3"),
            "speed=3 is not understood; give NAME=VALUE of model, start, .*, or a fix: compress, .*low-pass",
        ),
        (("--case", "start=1T start=0.9T"), "start is given twice"),
        (("--case", "low-pass=2"), "FACTOR 2 is outside 0.01 to 0.99"),
        (("--case", "low-pass=0.5:2"), "SHARE 2 is outside 0 to 1"),
        (("--case", "low-pass"), "LowPass has no published values for StableVideoDiffusionPipeline"),
        (("--case", "compress compress=3"), "compress is given twice"),
        (("--case", "condition-noise=much"), "BETA 'much' is not a number"),
        (("--case", "guidance-interval=3"), "guidance-interval=3'?: .. is missing"),
        (("--case", "guidance-interval"), r"needs a limit: .*; write guidance-interval=\[LOW\]..\[HIGH\]"),
        (("--case", "guidance-interval=soon.."), "start 'soon' is not understood"),
        (("--case", "mode=fast"), "mode fast is unknown; give auto, rescale, truncate"),
        (("--case", "steps=1.5"), "no whole number"),
        (("--case", "init=analytic"), "no moments for tiny"),
        (("--case", "a:", "--case", "a:"), "two cases are called a"),
        (("--start", "0.9"), "start 0.9 is ambiguous"),
        (("--start", ","), "give one or more"),
        (("--models", "nothing-here"), "nothing-here"),
        (("--lora", "no.safetensors"), "LoRA no.safetensors: no such file"),
        (("--case", "lora=someone/style:0.5"), "--lora: a StableVideoDiffusionPipeline takes none"),
        (("--offload", "model", "--device", "cpu"), "offload model: it spares the memory of an accelerator"),
        (("--vae-tiling",), "cannot decode in tiles"),
        (("--mask", "photo.png"), "--mask: a StableVideoDiffusionPipeline takes no motion mask"),
        (("--prompt", "waves"), "--prompt: tiny reads no prompts"),
        (("--set", "speed=3"), "--set speed"),
        (("--dtype", "float8"), "dtype 'float8'"),
        (("--out", "taken"), "holds files of others"),
    ],
)
def test_bad_input_is_told_in_one_line(refused, photo, tiny_folder, tmp_path, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    refused("compare", photo, "--model", tiny_folder, *SMALL, *arguments, reasons=[reason], files={"taken/x": b"x"})


def test_videos_of_different_lengths_are_refused(refused, photo, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = ("--size", "64x64")
    refused(
        "compare", photo, "--models", f"{tiny_folder},nano", *sizes, reasons=["differ in num_frames .*--num-frames"]
    )


def test_a_single_photo_has_no_interval():
    frames = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    one = Made.measured(0, 0, 0, level={"asked": "1.0T"}, sigmas=None, frames=frames, image=frames[0])
    assert one.values["first_frame_psnr"] == 60
    made = Comparison([{"label": "a"}], [{"file": "x.png"}], [one], 8.0)
    assert made.summary(0)["motion_score"]["low"] is None
    assert "(" not in page(made.record, {}).partition("<tbody>")[2].partition("</tbody>")[0]
