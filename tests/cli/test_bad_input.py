"""What people feed to `unleak generate`: one line, status 2, no traceback, nothing half-written."""

import io
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
    ],
)
def test_arguments_that_cannot_be_honoured(generate, photo, tmp_path, monkeypatch, arguments, reason):
    (tmp_path / "empty").mkdir()
    assert_refused(generate(*arguments), reason, tmp_path / "out")


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
