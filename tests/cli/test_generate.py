import hashlib
import json
import shutil
import sys
from importlib.metadata import version

import pytest
from PIL import Image

import unleak as package
from unleak.data.video import VIDEO_FORMATS, read_video


def test_a_photo_becomes_a_video_and_its_configuration(generate, photo, tmp_path):
    result = generate(photo, "--steps", 3, "--seed", 4, "--fps", 5, "--num-frames", 3, "--guidance", "1:2")
    assert (result.status, result.out) == (0, "out/photo.mp4\n")
    assert "start sigma 100, the fix recommended for this model" in result.err
    clip = read_video(tmp_path / "out/photo.mp4")
    assert (clip.frames.shape, clip.fps) == ((3, 16, 16, 3), 5)
    record = json.loads((tmp_path / "out/photo.json").read_text())
    assert record["photo"]["sha256"] == hashlib.sha256(photo.read_bytes()).hexdigest()
    assert record["versions"]["unleak"] == package.__version__
    assert record["versions"]["torch"] == version("torch")
    assert record["settings"] == {
        "arguments": {
            "height": 16, "width": 16, "num_frames": 3, "num_inference_steps": 3, "min_guidance_scale": 1.0,
            "max_guidance_scale": 2.0, "fps": 5, "motion_bucket_id": 127, "noise_aug_strength": 0.02,
            "decode_chunk_size": 8,
        },
        "fps": 5.0, "start": "sigma=100", "init": "standard", "mode": "auto", "motion": None, "seed": 4,
        "strategies": [],
    }  # fmt: skip
    assert record["model"]["pipeline"] == "StableVideoDiffusionPipeline"
    assert record["model"]["scheduler"]["sigma_max"] == 700
    assert record["dtype"] == dict.fromkeys(("unet", "vae", "image_encoder"), "float32")
    assert {"timestep", "fraction", "sigma", "log_snr", "edm_sigma", "flow_sigma"} < record["start"].keys()
    assert record["sigmas"][0] == pytest.approx(100)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["photo.json", "photo.mp4"]


def test_full_start_says_and_is_the_plain_pipeline(generate, photo, tmp_path):
    result = generate(photo, "--start", "1.0T", "--steps", 2)
    assert "start 1.0T, the plain model; init standard" in result.err
    assert "recommended" not in result.err
    assert json.loads((tmp_path / "out/photo.json").read_text())["sigmas"][0] == pytest.approx(700)


@pytest.mark.parametrize(
    ("options", "first_sigma", "evaluations"),
    [
        (["--start", "sigma=50"], 50, 6),
        (["--start", "0.5T"], ((0.002 ** (1 / 7) + 700 ** (1 / 7)) / 2) ** 7, 6),
        (["--motion", "high"], 40, 6),
        (["--start", "sigma=50", "--mode", "truncate"], 50, 5),
        (["--init", "unit"], 100, 6),
    ],
)
def test_start_init_mode_and_motion_reach_the_sampler(generate, photo, tmp_path, options, first_sigma, evaluations):
    assert generate(photo, "--steps", 6, *options).status == 0
    record = json.loads((tmp_path / "out/photo.json").read_text())
    assert record["sigmas"][0] == pytest.approx(first_sigma)
    assert len(record["sigmas"]) == evaluations + 1


def test_strategies_act_are_told_and_are_those_of_python(generate, photo, tmp_path):
    asked = ["--fix", "low-pass=0.5:0.4", "--fix", "condition-noise=0.3", "--fix", "guidance-interval=..sigma=50"]
    by_hand = (
        package.LowPass(0.5, interval=(0.0, 0.4)),
        package.ConditionNoise(0.3),
        package.GuidanceInterval(high="sigma=50"),
    )
    made = {}
    for k in range(4):
        result = generate(photo, "--steps", 4, *asked[: 2 * k], "--format", "png", "--out", f"{k}")
        assert result.status == 0
        made[k] = (tmp_path / f"{k}/photo.png").read_bytes()
        record = json.loads((tmp_path / f"{k}/photo.json").read_text())
        assert record["settings"]["strategies"] == [repr(one) for one in by_hand[:k]]
        assert all(repr(one) in result.err for one in by_hand[:k])
    assert len(set(made.values())) == 4


def test_alone_or_in_a_folder_a_photo_gives_the_same_video(generate, photo, tmp_path):
    shots = tmp_path / "shots"
    shots.mkdir()
    shutil.copy(photo, shots / "b.png")
    for name in ("a.png", "c.png"):
        Image.new("RGB", (20, 20), "teal").save(shots / name)
    assert generate(shots, "--out", "many").out.split() == ["many/a.mp4", "many/b.mp4", "many/c.mp4"]
    assert generate(photo, "--out", "one").status == 0
    assert (tmp_path / "many/b.mp4").read_bytes() == (tmp_path / "one/photo.mp4").read_bytes()
    assert (tmp_path / "many/a.mp4").read_bytes() == (tmp_path / "many/c.mp4").read_bytes()


@pytest.mark.parametrize("format", VIDEO_FORMATS)
def test_formats(generate, photo, tmp_path, format):
    result = generate(photo, "--format", format)
    assert result.out == f"out/photo.{format}\n"
    with (tmp_path / f"out/photo.{format}").open("rb") as file:
        assert file.read(12)[{"mp4": 4, "gif": 0, "webp": 8, "png": 1}[format] :].startswith(
            {"mp4": b"ftyp", "gif": b"GIF89a", "webp": b"WEBP", "png": b"PNG"}[format]
        )


def test_json_and_quiet(generate, photo):
    result = generate(photo, "--json", "--quiet")
    assert result.err == ""
    told = json.loads(result.out)
    assert [video["video"] for video in told["videos"]] == ["out/photo.mp4"]
    assert (told["failed"], told["skipped"]) == ([], [])


def test_dry_run_writes_and_loads_nothing(generate, photo, tmp_path, monkeypatch):
    monkeypatch.setattr("unleak.zoo.hub.load", None)
    result = generate(photo, "--dry-run")
    assert result.out == f"{photo} -> out/photo.mp4\n"
    (tmp_path / "bad.png").touch()
    mixed = generate(photo, "bad.png", "--dry-run", "--json")
    assert mixed.status == 2
    told = json.loads(mixed.out)
    assert told["planned"] == [{"photo": str(photo), "video": "out/photo.mp4"}]
    assert [failure["photo"] for failure in told["failed"]] == ["bad.png"]
    assert not (tmp_path / "out").exists()


def test_existing_videos_are_kept_and_the_new_one_numbered_skipped_or_replaced(generate, photo, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "photo.mp4").write_bytes(b"precious")
    assert generate(photo, "--dry-run").out == f"{photo} -> out/photo-2.mp4\n"
    numbered = generate(photo)
    assert (numbered.status, numbered.out) == (0, "out/photo-2.mp4\n")
    assert json.loads((out / "photo-2.json").read_text())["video"] == "out/photo-2.mp4"
    skipped = generate(photo, "--skip-existing", "--json")
    assert json.loads(skipped.out)["skipped"] == ["out/photo-2.mp4"]  # the other is not known to be of this photo
    assert f"skipped {photo}: out/photo-2.mp4 was made of it" in skipped.err
    assert (out / "photo.mp4").read_bytes() == b"precious"
    assert generate(photo, "--overwrite").status == 0
    assert len(read_video(out / "photo.mp4").frames) == 4
    record = (out / "photo.json").read_bytes()
    assert generate(photo, "--format", "gif", "--overwrite").out == "out/photo-3.gif\n"  # the record of the mp4 stays
    assert (out / "photo.json").read_bytes() == record


def test_a_photo_is_never_overwritten_by_its_own_video(generate, photo):
    before = photo.read_bytes()
    result = generate(photo, "--out", ".", "--format", "png", "--overwrite")
    assert (result.status, result.out) == (0, "photo-2.png\n")
    assert photo.read_bytes() == before


def test_photos_of_one_name_do_not_overwrite_each_other(generate, photo, tmp_path):
    Image.open(photo).save(tmp_path / "photo.bmp")
    result = generate(tmp_path)
    assert (result.status, result.out) == (0, "out/photo.mp4\nout/photo-2.mp4\n")
    records = [json.loads((tmp_path / f"out/{name}.json").read_text()) for name in ("photo", "photo-2")]
    assert [record["photo"]["file"].rpartition("/")[2] for record in records] == ["photo.bmp", "photo.png"]
    (tmp_path / "photo.bmp").write_bytes(b"damaged")
    again = generate(tmp_path, "--overwrite")
    assert (again.status, again.out) == (2, "out/photo-2.mp4\n")
    assert "photo.bmp: not an image" in again.err
    assert generate(tmp_path, "--skip-existing", "--quiet").out == ""


def test_the_notes_of_a_photo_are_told_and_kept(generate, tmp_path):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert "a.gif: 2 frames, the first is used" in generate("a.gif").err
    assert json.loads((tmp_path / "out/a.json").read_text())["photo"]["notes"] == ["2 frames, the first is used"]


def test_ctrl_c_leaves_nothing(generate, photo, tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("unleak.data.video._write_mp4", interrupt)
    result = generate(photo, "--quiet")
    assert (result.status, result.err) == (130, "")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_upright_photo_and_its_turned_copy_give_the_same_video(generate, photo, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(photo).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    generate(photo, "turned.png")
    assert (tmp_path / "out/photo.mp4").read_bytes() == (tmp_path / "out/turned.mp4").read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_help_and_mistakes_import_neither_torch_nor_diffusers():
    import subprocess

    code = (
        "import sys; from unleak.cli import main; status = main(sys.argv[1:]);"
        "print('heavy:', sorted({'torch', 'diffusers', 'transformers', 'av'} & set(sys.modules)), status)"
    )
    for arguments, expected in [
        (["--help"], "heavy: [] 0"),
        (["generate", "--help"], "heavy: [] 0"),
        (["--version"], "heavy: [] 0"),
        (["generate", "none.jpg"], "heavy: [] 2"),
        (["generate", "none.jpg", "--model", "nanno"], "heavy: [] 2"),
    ]:
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == expected
