"""What people feed to `unleak generate`: one line, status 2, no traceback, nothing half-written."""

import io
import json
import os
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from unleak.core.moments import LatentMoments, MomentsMeta


def encoded(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


NOISE = Image.effect_noise((64, 48), 90).convert("RGB")


def huge_png():
    body = b"IHDR" + (20_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    data = b"IDAT" + zlib.compress(b"\0" * 100)
    chunks = [(len(c) - 4).to_bytes(4, "big") + c + zlib.crc32(c).to_bytes(4, "big") for c in (body, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(NOISE, "JPEG", exif=exif)


UNUSABLE = {
    "text.jpg": (b"I am no image", "not an image that can be read"),
    "truncated.jpg": (encoded(NOISE, "JPEG")[:900], "truncated or damaged"),
    "truncated.png": (encoded(NOISE, "PNG")[:900], "truncated or damaged"),
    "empty.png": (b"", "the file is empty (0 bytes)"),
    "huge.png": (huge_png(), "more than the 150 million pixels that are read"),
    "playlist.mp4": (b"ffconcat version 1.0\nfile secret.mp4\n", "not an image that can be read"),
    "playlist.jpg": (b"#EXTM3U\n#EXTINF:2,\nsecret.mp4\n", "not an image that can be read"),
    "phone.heic": (b"\0\0\0\x18ftypheic" + b"\0" * 64, "HEIC photos cannot be read; export it as JPEG or PNG"),
}

USABLE = {
    "sixteen.png": encoded(Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16), "PNG"),
    "cmyk.jpg": encoded(NOISE.convert("CMYK"), "JPEG"),
    "animated.gif": encoded(NOISE, "GIF", save_all=True, append_images=[NOISE.rotate(90)]),
    "turned.jpg": turned(),
    "transparent.png": encoded(Image.new("RGBA", (64, 48), (255, 0, 0, 99)), "PNG"),
    "single.png": encoded(Image.new("RGB", (1, 1), "red"), "PNG"),
}


def assert_refused(result, reason, out):
    """One line on stderr, status 2, and no file where videos go."""
    assert result.status == 2
    assert result.out == ""
    assert result.err.count("\n") == 1
    assert result.err.startswith("error: ")
    assert reason in result.err
    assert not out.is_dir() or list(out.iterdir()) == []


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_photo_that_cannot_be_used(generate, tmp_path, monkeypatch, name):
    monkeypatch.setattr("unleak.zoo.hub.load", None)  # it is told before any model is loaded
    content, reason = UNUSABLE[name]
    (tmp_path / name).write_bytes(content)
    result = generate(name)
    assert_refused(result, reason, tmp_path / "out")
    assert name in result.err


def test_one_bad_photo_does_not_stop_the_others(generate, tmp_path):
    shots = tmp_path / "shots"
    shots.mkdir()
    bad = {name: reason for name, (_, reason) in UNUSABLE.items() if name.endswith(("jpg", "png"))}
    for name in bad:
        (shots / name).write_bytes(UNUSABLE[name][0])
    for name, content in USABLE.items():
        (shots / name).write_bytes(content)
    result = generate("shots", "--quiet")
    assert result.status == 2
    made = sorted(f"out/{name.split('.')[0]}.mp4" for name in USABLE)
    assert sorted(result.out.split()) == made
    lines = result.err.splitlines()
    for line, (name, reason) in zip(lines, sorted(bad.items()), strict=True):
        assert line.startswith(f"error: shots/{name}: ")
        assert reason in line
    records = {path.replace(".mp4", ".json") for path in made}
    assert {str(path.relative_to(tmp_path)) for path in (tmp_path / "out").iterdir()} == {*made, *records}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["none.jpg"], "none.jpg: no such file or folder"),
        (["empty"], "empty: no images in it"),
        (["*.jpg"], "*.jpg: no images in it"),
        (["photo.png", "--start", "sigma=5000"], "sigma 5000 lies outside this VE process"),
        (["photo.png", "--start", "1.2T"], "lies outside"),
        (["photo.png", "--start", "0.94"], "0.94T or sigma=0.94?"),
        (["photo.png", "--start", "early"], "not understood"),
        (["photo.png", "--motion", "low", "--start", "940"], "give motion or start, not both"),
        (["photo.png", "--motion", "wild"], "--motion"),
        (["photo.png", "--init", "analytic"], "make them with `unleak stats"),
        (["photo.png", "--init", "none.safetensors"], "no such file; give standard, unit, analytic"),
        (["photo.png", "--init", "photo.png"], "neither safetensors nor a pickle"),
        (["photo.png", "--size", "64"], "give width and height in pixels"),
        (["photo.png", "--size", "20x16"], "takes multiples of 16"),
        (["photo.png", "--size", "0x0"], "give width and height in pixels"),
        (["photo.png", "--guidance", "high"], "give one or two numbers"),
        (["photo.png", "--guidance", "3:1"], "1 at the last frame turns guidance off"),
        (["photo.png", "--seed", str(2**64)], "--seed"),
        (["photo.png", "--steps", "0"], "--steps"),
        (["photo.png", "--fps", "nan"], "--fps"),
        (["photo.png", "--format", "avi"], "--format"),
        (["photo.png", "--device", "abacus"], "device 'abacus' is unknown"),
        (["photo.png", "--dtype", "int3"], "give one of float32, float16, bfloat16"),
        (["photo.png", "--model", "nanoo"], "did you mean nano?"),
        (["photo.png", "--overwrite", "--skip-existing"], "exclude each other"),
        (["photo.png", "--out", "photo.png/deep"], "photo.png"),
        (["photo.png", "--out", "photo.png"], "photo.png: File exists"),
        (["photo.png", "--out", "/proc"], "/proc"),
        (["photo.png", "--nonsense"], "No such option"),
        ([], "Missing argument"),
        (["photo.png", "--set", "motion_bucket_id"], "give NAME=VALUE, such as motion_bucket_id=VALUE"),
        (["photo.png", "--set", "motion_bucket_id=wild"], "motion_bucket_id=wild: this takes int"),
        (["photo.png", "--set", "motion=9"], "motion is unknown; a StableVideoDiffusionPipeline has motion_bucket_id"),
        (["photo.png", "--set", "__class__=9"], "__class__ is unknown"),
        (["photo.png", "--set", "height=64"], "give --size for it"),
        (["photo.png", "--set", "fps=7"], "give --fps for it"),
        (["photo.png", "--set", "sigmas=[1]"], "the start and --steps make the schedule"),
        (["photo.png", "--set", "generator=1"], "generator takes no text or number"),
        (["photo.png", *["--set", "motion_bucket_id=9"] * 2], "motion_bucket_id is given twice"),
        (["photo.png", "--fps", "7.5"], "fps=7.5: this takes int"),
        (["photo.png", "--prompt", "a dog"], "a StableVideoDiffusionPipeline has no prompt; leave it out"),
        (["photo.png", "--negative-prompt", "blur"], "has no negative_prompt"),
        (["photo.png", "--prompts", "none.txt"], "none.txt: No such file"),
        (["photo.png", "--prompts", "photo.png"], "not a text file in UTF-8"),
        (["photo.png", "--lora", "none.safetensors"], "no such file or folder; give one, or a Hub id"),
        (["photo.png", "--lora", "photo.png"], "only .safetensors files are read"),
        (["photo.png", "--lora", "someone/style:nan"], "give a scale such as 0.8"),
        (["photo.png", "--lora", "someone/style:0.5"], "a StableVideoDiffusionPipeline takes none"),
        (["photo.png", "--offload", "model"], "it spares the memory of an accelerator, and this runs on the CPU"),
        (["photo.png", "--offload", "sideways"], "--offload"),
        (["photo.png", "--vae-tiling"], "cannot decode in tiles; --set decode_chunk_size=1 saves memory too"),
    ],
)
def test_arguments_that_cannot_be_honoured(generate, photo, tmp_path, monkeypatch, arguments, reason):
    (tmp_path / "empty").mkdir()
    assert_refused(generate(*arguments), reason, tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--size", "20x16"], "size 20x16: wan22 takes multiples of 16"),
        (["--num-frames", "8"], "8 frames: wan22 makes 4k + 1; give 5 or 9"),
        (["--guidance", "1:3"], "has one guidance for all frames; give 3"),
        (["--noise-aug", "0.1"], "--noise-aug: a WanImageToVideoPipeline has no noise_aug_strength"),
        (
            ["--guidance", "1", "--negative-prompt", "blur"],
            "no effect at guidance_scale 1; raise it above 1 with --guid",
        ),
        (["--start", "sigma=1.5"], "sigma 1.5 lies outside this RF process"),
        (["--init", "analytic"], "make them with `unleak stats"),
        (["--prompt", "a", "--prompts", "words.txt"], "--prompt is for all photos, --prompts for each its own"),
        (["--prompts", "words.txt"], "words.txt: 2 lines for 1 photos"),
        (["--set", "guidance_scale_2=high"], "this takes float"),
        (["--set", "prompt_embeds=[1]"], "prompt_embeds takes no text or number"),
        (["--lora", "bad.safetensors"], "bad.safetensors: not of this model, or damaged"),
    ],
)
def test_what_another_pipeline_cannot_be_asked(wan, photo, tmp_path, arguments, reason):
    (tmp_path / "words.txt").write_text("a dog\nruns\n")
    (tmp_path / "bad.safetensors").write_bytes(b"none")
    assert_refused(wan(photo, "--quiet", *arguments), reason, tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("system", "system is no pipeline of the diffusers that is installed; unleak knows "),
        ("utils.logging", "is no pipeline of the diffusers that is installed"),
        ("AutoencoderKLWan", "is no pipeline of the diffusers that is installed"),
        ("StableDiffusionPipeline", "unleak cannot attach to a StableDiffusionPipeline; it knows "),
        (
            "WanVideoToVideoPipeline",
            "cannot attach to a WanVideoToVideoPipeline: it starts from the caller's own video",
        ),
        ("WanVACEPipeline", "takes more than a photo; call it from Python, after unleak.apply(pipe)"),
        ("ConsisIDPipeline", "takes more than a photo"),
    ],
)
def test_folders_of_what_cannot_animate_a_photo(unleak, photo, tmp_path, monkeypatch, kind, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/model_index.json").write_text(json.dumps({"_class_name": kind}))
    assert_refused(unleak("generate", photo, "--model", "other"), reason, tmp_path / "out")


@pytest.mark.parametrize(
    ("part", "options", "advice"),
    [
        ("transformer.forward", [], "next, try --vae-tiling; after that --size 16x16"),
        ("vae.decode", ["--vae-tiling"], "next, try --size 16x16"),
    ],
)
def test_out_of_memory_names_the_next_thing_to_try(wan, photo, tmp_path, monkeypatch, part, options, advice):
    from unleak.zoo import hub

    def exhausted(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    plain = hub.load

    def load(*args, **kwargs):
        pipe = plain(*args, **kwargs)
        name, method = part.split(".")
        setattr(getattr(pipe, name), method, exhausted)
        return pipe

    monkeypatch.setattr(hub, "load", load)
    assert_refused(wan(photo, "--quiet", *options), f"out of memory on cpu; {advice}", tmp_path / "out")


def test_moments_of_another_model(generate, photo, tmp_path):
    moments = torch.rand(2, 4, 4, 2, 2).double()
    other = LatentMoments(9, *moments, MomentsMeta("another model", "AutoencoderKL/0.13025/0badcafe"))
    other.save(tmp_path / "other.safetensors")
    result = generate(photo, "--init", "other.safetensors", "--quiet")
    assert_refused(result, "these moments belong to another model", tmp_path / "out")
    LatentMoments(9, *torch.rand(2, 16, 4, 2, 2).double()).save(tmp_path / "wide.safetensors")
    result = generate(photo, "--init", "wide.safetensors", "--quiet")
    assert_refused(result, "16 channels", tmp_path / "out")


def test_the_error_in_full_for_those_who_ask(generate, monkeypatch):
    monkeypatch.setenv("UNLEAK_DEBUG", "1")
    with pytest.raises(ValueError, match=r"no such file"):
        generate("none.jpg")


def test_a_missing_photo_is_told_at_once_by_the_real_program(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "unleak", "generate", "none.jpg"], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: none.jpg: no such file or folder\n"


FULL_DISK = """
import resource, sys
from unleak.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
sys.exit(main(sys.argv[1:]))
"""


def test_a_full_disk(tiny_folder, photo, tmp_path):
    arguments = [
        "generate",
        photo,
        "--model",
        tiny_folder,
        "--size",
        "16x16",
        "--steps",
        "1",
        "--out",
        tmp_path / "out",
    ]
    command = [sys.executable, "-B", "-c", FULL_DISK, *arguments, "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: File too large; free some space or choose another --out\n"
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_killed_run_removes_its_temporary_file(tmp_path):
    """SIGTERM in the middle of writing."""
    code = (
        "import os, signal, sys\n"
        "sys.argv = ['unleak', 'doctor']\n"
        "from unleak.cli import app\n"
        "from unleak.data.atomic import written_whole\n"
        "def doctor(*args, **kwargs):\n"
        "    with written_whole('video.mp4') as temporary:\n"
        "        temporary.write_bytes(b'half')\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "app.app = doctor\n"
        "sys.exit(app.main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 128 + 15
    assert list(tmp_path.iterdir()) == []
