"""Photos in bulk, and motion masks, on the command line."""

import json

import pytest
from PIL import Image

from unleak.cli import main


@pytest.fixture
def shots(tmp_path, monkeypatch):
    for i in range(2):
        Image.effect_noise((32, 32), 90).save(tmp_path / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def jsonl(*rows):
    with open("shots.jsonl", "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def run(capfd, model, *arguments):
    capfd.readouterr()
    size = "16x16" if "animate" not in str(model) else "24x16"
    common = ["--model", model, "--size", size, "--steps", 1, "--num-frames", 2, "--json"]
    status = main([str(argument) for argument in ("generate", *arguments, *common)])
    out, err = capfd.readouterr()
    return status, json.loads(out) if out else None, err


@pytest.fixture(scope="session")
def animate(tmp_path_factory):
    from tests.tiny.animate_anything import tiny_animate_anything

    folder = tmp_path_factory.mktemp("models") / "animate"
    tiny_animate_anything().save_pretrained(folder)
    return folder


def test_a_list_gives_each_photo_its_prompt_and_its_name(shots, animate, capfd):
    jsonl({"dir": "1.png", "text": "a dog", "id": "first"}, {"dir": "1.png", "text": "dog"})
    status, made, err = run(capfd, animate, "shots.jsonl")
    assert status == 0, err
    assert [video["video"] for video in made["videos"]] == ["out/first.mp4", "out/1.mp4"]
    assert [video["settings"]["arguments"]["prompt"] for video in made["videos"]] == ["a dog", "dog"]
    hashes = {(shots / "out" / f"{name}.mp4").read_bytes() for name in ("first", "1")}
    assert len(hashes) == 2


def test_prompts_of_a_list_have_no_effect_on_a_model_that_reads_none(shots, tiny_folder, capfd):
    (shots / "p.txt").write_text("one\ntwo\n")
    status, made, err = run(capfd, tiny_folder, shots, "--dry-run")
    assert status == 0
    assert len(made["planned"]) == 2
    assert "reads no prompts: those of the list have no effect" in err


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        ([{"dir": "0.png"}, {"dir": "9.png"}], [], "shots.jsonl, line 2: 9.png: no such file"),
        ([{"dir": "0.png"}, {"dir": "/etc/hostname"}], [], "line 2: /etc/hostname is outside the list's folder"),
        ([{"dir": "0.png", "text": "a"}], ["--prompt", "b"], "--prompt b: shots.jsonl, line 1 has prompts of its own"),
        (
            [{"dir": "0.png", "text": "a"}],
            ["--prompts", "p"],
            "--prompts p: shots.jsonl, line 1 has prompts of its own",
        ),
        ([{"dir": "0.png"}], ["--mask", "9.png"], "9.png"),
        ([{"dir": "0.png"}], ["--mask", "shots.jsonl"], "not an image"),
    ],
)
def test_what_is_wrong_with_a_list_is_one_line_before_anything_is_made(shots, animate, capfd, rows, arguments, message):
    jsonl(*rows)
    status, _, err = run(capfd, animate, "shots.jsonl", *arguments)
    assert status == 2
    assert message in err.splitlines()[-1]
    assert not (shots / "out").exists()


def test_prompts_that_are_asked_for_come_before_those_of_a_folder(shots, animate, capfd):
    (shots / "p.txt").write_text("one\ntwo\n")
    for asked, expected in (["--prompts", "p.txt"], ["one", "two"]), (["--prompt", "x"], ["x", "x"]):
        status, made, err = run(capfd, animate, shots, "--dry-run", *asked)
        assert status == 0, err
        assert made["settings"]["arguments"]["prompt"] == expected[0]
    (shots / "p.txt").write_text("one\n")
    status, _, err = run(capfd, animate, shots)
    assert status == 2
    assert "p.txt: 1 prompts for the 2 photos beside it" in err


def test_a_mask_for_a_model_without_one(shots, tiny_folder, capfd):
    status, _, err = run(capfd, tiny_folder, "0.png", "--mask", "1.png")
    assert status == 2
    assert "--mask: a StableVideoDiffusionPipeline takes no motion mask; leave it out" in err


def test_the_record_says_how_much_moves_inside_and_outside_the_mask(shots, animate, capfd):
    mask = Image.new("L", (32, 32))
    mask.paste(255, (16, 0, 32, 32))
    mask.save("mask.png")
    status, made, err = run(capfd, animate, "0.png", "--mask", "mask.png")
    assert status == 0, err
    (video,) = made["videos"]
    assert video["mask"]["file"] == "mask.png"
    assert video["motion"]["share"] == pytest.approx(0.5, abs=0.05)
    assert video["motion"]["inside"] > 0
    assert video["motion"]["outside"] > 0
    record = json.loads((shots / "out" / "0.json").read_text())
    assert record["motion"] == video["motion"]

    Image.new("L", (64, 32), 255).save("wide.png")
    status, _, err = run(capfd, animate, "0.png", "--mask", "wide.png", "--overwrite")
    assert status == 2
    assert "wide.png: 64x32 is another shape than the photo's 32x32; draw it on the photo" in err


@pytest.mark.parametrize("fault", ["text", "cut", "shape"])
def test_a_bad_mask_of_a_list_is_named_and_left_out(shots, animate, capfd, fault):
    Image.new("L", (32, 32), 255).save("good.png")
    match fault:
        case "text":
            (shots / "bad.png").write_text("no picture")
        case "cut":
            (shots / "bad.png").write_bytes((shots / "0.png").read_bytes()[:200])
        case "shape":
            Image.new("L", (64, 32), 255).save("bad.png")
    jsonl({"dir": "0.png", "mask": "bad.png"}, {"dir": "1.png", "mask": "good.png"})
    for more in (["--dry-run"], []):
        status, made, err = run(capfd, animate, "shots.jsonl", *more)
        assert status == 2, err
        (failure,) = made["failed"]
        assert failure["photo"] == "0.png"
        assert failure["reason"].startswith("bad.png: ")
        assert [one["video"] for one in made["planned" if more else "videos"]] == ["out/1.mp4"]
    assert (shots / "out" / "1.mp4").exists()
