"""What people feed to `unleak generate`: one line, status 2, no traceback, no model loaded, every file as it was."""

import io
import json
import os
import pickle
import re
import shlex
import shutil
import socket
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save


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


def text_bomb():
    """A PNG whose comment is 100 MB of spaces."""
    plain = encoded(NOISE, "PNG")
    chunk = b"zTXtComment\0\0" + zlib.compress(b" " * 100_000_000)
    return plain[:33] + (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + plain[33:]


def listening(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


NO_IMAGE = r"not an image that can be read; give a JPEG, PNG, WebP"
DAMAGED = r"truncated or damaged \(.*; copy or export it again"
TOO_LARGE = r".*more than the 150 million pixels that are read; scale the image down first"
FLOATS = Image.fromarray(np.ones((8, 8), np.float32))
WIDE = Image.fromarray(np.full((8, 8), 70_000, np.int32))

UNUSABLE = {
    "text.jpg": (b"I am no image", NO_IMAGE),
    "page.png": (b"<!DOCTYPE html><title>404</title>", NO_IMAGE),
    "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", NO_IMAGE),
    "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", NO_IMAGE),
    "playlist.mp4": (b"ffconcat version 1.0\nfile secret.mp4\n", NO_IMAGE),
    "playlist.jpg": (b"#EXTM3U\n#EXTINF:2,\nsecret.mp4\n", NO_IMAGE),
    "phone.heic": (b"\0\0\0\x18ftypheic" + b"\0" * 64, "HEIC photos cannot be read; export it as JPEG or PNG"),
    "empty.png": (b"", r"the file is empty \(0 bytes\); copy or download it again"),
    "truncated.jpg": (encoded(NOISE, "JPEG")[:900], DAMAGED),
    "truncated.png": (encoded(NOISE, "PNG")[:900], DAMAGED),
    "truncated.webp": (encoded(NOISE, "WEBP", lossless=True)[:900], DAMAGED),
    "truncated.tif": (encoded(NOISE, "TIFF")[:900], f"{DAMAGED}|{NO_IMAGE}"),
    "truncated.bmp": (encoded(NOISE, "BMP")[:900], DAMAGED),
    "truncated.ppm": (encoded(NOISE, "PPM")[:900], DAMAGED),
    "signature.png": (b"\x89PNG\r\n\x1a\n", f"{DAMAGED}|{NO_IMAGE}"),
    "flipped.png": (encoded(NOISE, "PNG")[:60] + b"\xff" * 500 + encoded(NOISE, "PNG")[560:], DAMAGED),
    "bomb.png": (text_bomb(), DAMAGED),
    "huge.png": (huge_png(), TOO_LARGE),
    "huge.ppm": (b"P6 99999 99999 255\n", TOO_LARGE),
    "floats.tif": (encoded(FLOATS, "TIFF"), "floating-point pixels have no defined white; save the image with 8 or 16"),
    "wide.tif": (encoded(WIDE, "TIFF"), "more than 16 bits a sample; save the image with 8 or 16 bits"),
    "pipe.jpg": (os.mkfifo, "a pipe; give a regular file"),
    "socket.jpg": (listening, "a socket; give a regular file"),
    "device.jpg": (lambda path: path.symlink_to("/dev/zero"), "a device; give a regular file"),
    "loop.jpg": (lambda path: path.symlink_to(path), "no such file or folder"),
    "dangling.jpg": (lambda path: path.symlink_to("gone.jpg"), "no such file or folder"),
    "folder.jpg": (Path.mkdir, "no images in it; known endings are .avif"),
}

USABLE = {
    "sixteen.png": encoded(Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16), "PNG"),
    "cmyk.jpg": encoded(NOISE.convert("CMYK"), "JPEG"),
    "animated.gif": encoded(NOISE, "GIF", save_all=True, append_images=[NOISE.rotate(90)]),
    "turned.jpg": turned(),
    "transparent.png": encoded(Image.new("RGBA", (64, 48), (255, 0, 0, 99)), "PNG"),
    "single.png": encoded(Image.new("RGB", (1, 1), "red"), "PNG"),
}


@pytest.fixture
def here(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").symlink_to(tiny_folder)
    (tmp_path / "photo.png").write_bytes(encoded(NOISE, "PNG"))


BASE = ("generate", "--model", "tiny", "--size", "16x16", "--steps", 1)


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_photo_that_cannot_be_used(here, refused, name):
    content, reason = UNUSABLE[name]
    refused(*BASE, name, reasons=[rf"{name}: ({reason})"], files={name: content})


def test_one_bad_photo_does_not_stop_the_others(here, unleak, tmp_path):
    bad = {name: content for name, (content, _) in UNUSABLE.items() if name.endswith(("jpg", "png", "tif"))}
    bad = {name: content for name, content in bad.items() if isinstance(content, bytes)}
    Path("shots").mkdir()
    for name, content in (bad | USABLE).items():
        Path("shots", name).write_bytes(content)
    result = unleak(*BASE, "shots", "--quiet")
    assert result.status == 2
    made = sorted(f"out/{name.split('.')[0]}.mp4" for name in USABLE)
    assert sorted(result.out.split()) == made
    for line, name in zip(result.err.splitlines(), sorted(bad), strict=True):
        assert line.startswith(f"error: shots/{name}: ")
    records = {path.replace(".mp4", ".json") for path in made}
    assert {str(path) for path in Path("out").iterdir()} == {*made, *records}


def test_control_names_that_are_no_text_or_look_like_options(here, unleak):
    names = [b"caf\xe9.png", b"-o.png", b"a\nb [red].png"]
    for name in names:
        Path(os.fsdecode(name)).write_bytes(encoded(NOISE, "PNG"))
    result = unleak(*BASE, "--quiet", "--", *map(os.fsdecode, names))
    assert (result.status, result.err) == (0, "")
    assert result.out == "out/caf\\udce9.mp4\nout/-o.mp4\nout/a\\nb [red].mp4\n"
    assert {os.fsencode(path) for path in Path("out").glob("*.mp4")} == {b"out/" + name[:-3] + b"mp4" for name in names}


OPTIONS = {
    "none.jpg": r"none.jpg: no such file or folder",
    "empty": r"empty: no images in it; known endings are",
    "*.jpg": r"\*.jpg: no images in it; known endings are",
    "''": r"an empty name; give a file, a folder or a pattern of images",
    "-photo.png": r"No such option: -p.*see unleak generate --help",
    "--nonsense": r"No such option: --nonsense.*see unleak generate --help",
    "--": r"Missing argument 'PHOTO...'",
    f"{'x' * 300}.jpg": r"File name too long",
    "a\x1b7b.jpg": r"a\\x1b7b.jpg: no such file",
    # starts and what goes with them
    "photo.png --start 0T": r"start '?0T'?: there is no noise to remove at 0; give more, such as 0.94T",
    "photo.png --start sigma=5000": r"sigma 5000 lies outside this VE process",
    "photo.png --start 1.2T": r"fraction 1.2 lies outside",
    "photo.png --start -0.5T": r"lies outside",
    "photo.png --start 1001": r"timestep 1001 lies outside",
    f"photo.png --start {'9' * 400}": r"timestep inf lies outside",
    "photo.png --start 1e400T": r"lies outside",
    "photo.png --start sigma=inf": r"lies outside",
    "photo.png --start logsnr=-inf": r"lies outside",
    "photo.png --start 0.94": r"start 0.94 is ambiguous: 0.94T or sigma=0.94\?",
    "photo.png --start -5": r"start -5 is ambiguous",
    "photo.png --start early": r"start 'early' is not understood: say for example 940",
    "photo.png --start nan": r"start 'nan' is not understood: say for example 940",
    "photo.png --start sigma=nan": r"start 'sigma=nan' is not understood",
    "photo.png --start sigma": r"start 'sigma' is not understood",
    "photo.png --start 100%": r"start '100%' is not understood",
    "photo.png --start 0.9T,0.8T": r"start '0.9T,0.8T' is not understood",
    "photo.png --start ''": r"'--start': it is empty; give a value, or leave the option out",
    "photo.png --motion low --start 940": r"give motion or start, not both",
    "photo.png --motion wild": r"'--motion': .*'wild' is not one of 'low', 'medium', 'high'",
    "photo.png --mode sideways": r"'--mode': .*'sideways' is not one of 'auto', 'rescale', 'truncate'",
    "photo.png --init analytic": r"no moments for tiny yet; make them with `unleak stats",
    "photo.png --init none.safetensors": r"'none.safetensors': no such file; give standard, unit, analytic",
    "photo.png --init a/b/c": r"'a/b/c': no such file; give standard, unit, analytic",
    "photo.png --init a/b.safetensors --dry-run": r"'a/b.safetensors': no such file; give standard, unit, analytic",
    "photo.png --out photo.png --dry-run": r"photo.png: cannot be written to .*; choose another folder",
    "photo.png --out /proc/none --dry-run": r"/proc/none: cannot be written to .*; choose another folder",
    "photo.png --init ''": r"'--init': it is empty; give a value, or leave the option out",
    "photo.png --init empty": r"empty holds no moments file .*make one with `unleak stats`",
    "photo.png --init photo.png": r"photo.png is neither safetensors nor a pickle of plain tensors",
    # sizes and numbers
    "photo.png --size 64": r"'--size': 64: give width and height in pixels, .*such as 1024x576",
    "photo.png --size 20x16": r"size 20x16: tiny takes multiples of 16, such as",
    "photo.png --size 0x0": r"'--size': 0x0: give width and height",
    "photo.png --size -16x16": r"'--size': -16x16: give width and height",
    "photo.png --size 16x16x3": r"'--size': 16x16x3: give width and height",
    "photo.png --size 1e3x16": r"'--size': 1e3x16: give width and height",
    "photo.png --size 16": r"'--size': 16: give width and height",
    "photo.png --size ''": r"'--size': : give width and height",
    "photo.png --size 16000000x16": r"'--size': 16000000x16: give width and height in pixels, up to 99999",
    f"photo.png --size {'9' * 5000}x16": r"give width and height in pixels, up to 99999",
    "photo.png --num-frames 1": r"'--num-frames': .*1",
    "photo.png --num-frames 1000000000": r"'--num-frames': .*1000000000",
    "photo.png --num-frames 4.5": r"'--num-frames': .*4\.5",
    "photo.png --steps 0": r"'--steps': .*0",
    "photo.png --steps 1000000000": r"'--steps': .*1000000000",
    "photo.png --steps ten": r"'--steps': .*ten",
    "photo.png --seed -1": r"'--seed': .*\-1",
    "photo.png --seed 18446744073709551616": r"'--seed': .*18446744073709551616",
    "photo.png --seed ''": r"'--seed': .*",
    "photo.png --fps 0": r"'--fps': .*0",
    "photo.png --fps nan": r"'--fps': .*nan",
    "photo.png --fps 7.5": r"fps=7.5: this takes int",
    "photo.png --noise-aug -1": r"'--noise-aug': .*\-1",
    "photo.png --noise-aug inf": r"'--noise-aug': .*inf",
    "photo.png --noise-aug nan": r"'--noise-aug': .*nan",
    "photo.png --guidance high": r"guidance high: give one or two numbers from 1 \(none\) to 100, such as 3 or 1:3",
    "photo.png --guidance 0.5": r"guidance 0.5: give one or two numbers",
    "photo.png --guidance nan": r"guidance nan: give one or two numbers",
    "photo.png --guidance 1:2:3": r"guidance 1:2:3: give one or two numbers",
    "photo.png --guidance 3:1": r"1 at the last frame turns guidance off for all; give more, as in 3:1.1",
    # what this pipeline has not
    "photo.png --prompt 'a dog'": r"a StableVideoDiffusionPipeline has no prompt; leave it out",
    "photo.png --negative-prompt blur": r"a StableVideoDiffusionPipeline has no negative_prompt; leave it out",
    "photo.png --prompts none.txt": r"--prompts none.txt: No such file or directory; give a text file",
    "photo.png --prompts empty": r"--prompts empty: a folder; give a regular file",
    "photo.png --prompts photo.png": r"--prompts photo.png: not a text file in UTF-8; save it as UTF-8",
    "photo.png --set motion_bucket_id": r"--set motion_bucket_id: give NAME=VALUE, such as motion_bucket_id=VALUE",
    "photo.png --set =5": r"--set =5: give NAME=VALUE",
    "photo.png --set motion_bucket_id=wild": r"--set motion_bucket_id=wild: this takes int",
    "photo.png --set motion=9": r"motion is unknown; a StableVideoDiffusionPipeline has motion_bucket_id",
    "photo.png --set __class__=9": r"__class__ is unknown",
    "photo.png --set height=64": r"--set height=64: give --size for it",
    "photo.png --set fps=7": r"--set fps=7: give --fps for it",
    "photo.png --set sigmas=[1]": r"--set sigmas=\[1\]: the start and --steps make the schedule",
    "photo.png --set generator=1": r"generator takes no text or number",
    "photo.png --set motion_bucket_id=9 --set motion_bucket_id=9": r"motion_bucket_id is given twice",
    "photo.png --lora none.safetensors": r"LoRA none.safetensors: no such file or folder; give one, or a Hub id",
    "photo.png --lora photo.png": r"LoRA photo.png: only .safetensors files are read",
    "photo.png --lora someone/style:nan": r"LoRA someone/style:nan: give a scale such as 0.8 after the colon",
    "photo.png --lora someone/style:0.5": r"--lora: a StableVideoDiffusionPipeline takes none",
    "photo.png --vae-tiling": r"--vae-tiling: .*cannot decode in tiles; --set decode_chunk_size=1 saves memory too",
    # the machine
    "photo.png --device abacus": r"device 'abacus' is unknown; give cpu, cuda, cuda:1 or mps",
    "photo.png --device ''": r"device '' is unknown; give cpu",
    "photo.png --device cuda:x": r"device 'cuda:x' is unknown; give cpu",
    "photo.png --device meta": r"device 'meta' is unknown; give cpu, cuda, cuda:1 or mps",
    "photo.png --device cpu:99": r"device cpu:99: this machine has one cpu; give --device cpu",
    "photo.png --dtype int3": r"dtype 'int3': give one of float32, float16, bfloat16",
    "photo.png --dtype float64": r"dtype 'float64': give one of float32",
    "photo.png --offload model --device cpu": r"offload model: it spares .*, and this runs on the CPU",
    "photo.png --offload sideways": r"'--offload': .*'sideways' is not one of 'none', 'model'",
    # the model
    "photo.png --model nanoo": r"model 'nanoo' is unknown: did you mean nano\?",
    "photo.png --model 'nano '": r"model 'nano ' is unknown: did you mean nano\?",
    "photo.png --model ''": r"'--model': it is empty; give a value, or leave the option out",
    "photo.png --model empty": r"model empty: no pipeline there; it needs the model_index.json",
    "photo.png --model ../empty/none": r"model '../empty/none' is unknown",
    "photo.png --model https://host/nano": r"model 'https://host/nano' is unknown",
    "photo.png --model someone/nothing": r"model someone/nothing: .*not to be had from the Hub",
    # where it goes
    "photo.png --format avi": r"'--format': .*'avi' is not one of 'mp4', 'gif'",
    "photo.png --overwrite --skip-existing": r"--overwrite and --skip-existing exclude each other; give one of them",
    "photo.png --out photo.png/deep": r"photo.png/deep: cannot be written to .*; choose another folder",
    "photo.png --out photo.png": r"photo.png: cannot be written to \(Not a directory\); choose another folder",
    "photo.png --out /proc": r"/proc: cannot be written to .*; choose another folder",
    f"photo.png --out {'x' * 300}": r"cannot be written to \(File name too long\)|File name too long",
}
if not torch.accelerator.is_available():
    OPTIONS["photo.png --device cuda"] = r"device cuda: this machine has no accelerator; give --device cpu"
    OPTIONS["photo.png --device mps"] = r"device mps: this machine has no accelerator; give --device cpu"


@pytest.mark.parametrize("command", OPTIONS, ids=lambda command: command[:60])
def test_an_option_that_cannot_be_honoured(here, refused, command):
    there = {"made/photo.mp4": b"mine", "recorded/photo.json": b"mine", "folders/photo.mp4/x": b"", "empty/x.txt": b""}
    refused(*BASE, *shlex.split(command), reasons=[OPTIONS[command]], files=there)


# ---- moments -------------------------------------------------------------------------------------------------------


class Touches:
    """Unpickled, it makes a file."""

    def __reduce__(self):
        return Path.touch, (Path("hacked"),)


def pickled(values):
    buffer = io.BytesIO()
    torch.save(values, buffer)
    return buffer.getvalue()


def moments(mean=None, mean_square=None, **about):
    mean = torch.zeros(4, 4, 2, 2).double() if mean is None else mean
    tensors = {"mean": mean, "mean_square": mean.square() + 1 if mean_square is None else mean_square.clone()}
    about = {"version": 1, "layout": "c f h w", "count": 9} | about
    return save(tensors, {"unleak_moments": json.dumps(about)})


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Touches()))
    return buffer.getvalue()


ONES = torch.ones(4, 4, 2, 2).double()
X0 = torch.zeros(4, 4, 2, 2)
DAMAGED_MOMENTS = r"is damaged or was edited: .*(Make|make) "
REFUSED_PICKLE = r"is neither safetensors nor a pickle of plain tensors: refused"
BAD_MOMENTS = {
    "empty.safetensors": (b"", REFUSED_PICKLE),
    "text.safetensors": (b"no moments", REFUSED_PICKLE),
    "truncated.safetensors": (moments()[:-10], REFUSED_PICKLE),
    "header.safetensors": (b"\xff" * 8 + moments()[8:], REFUSED_PICKLE),
    "other.safetensors": (
        save({"weight": ONES}),
        r"holds \['weight'\], not moments: expected a file of `unleak stats`",
    ),
    "json.safetensors": (save({"mean": ONES}, {"unleak_moments": "{"}), DAMAGED_MOMENTS),
    "list.safetensors": (save({"mean": ONES}, {"unleak_moments": "[1]"}), DAMAGED_MOMENTS),
    "half.safetensors": (
        save({"mean": ONES}, {"unleak_moments": '{"version": 1, "layout": "c f h w"}'}),
        r"damaged or was edited: 'mean_square'. Make",
    ),
    "version.safetensors": (moments(version=9), r"moments file of version 9.*update unleak, or make the moments again"),
    "layout.safetensors": (moments(layout="f c h w"), r"layout 'f c h w'.*update unleak, or make the moments again"),
    "count.safetensors": (moments(count="many"), r"count 'many' is no number of clips. Make the moments again"),
    "minus.safetensors": (moments(count=-1), r"count -1 is no number of clips. Make the moments again"),
    "none.safetensors": (moments(count=0), r"these moments hold no video: gather some first"),
    "fps.safetensors": (moments(fps="fast"), r"fps 'fast' is of another kind. Make the moments again"),
    "vae.safetensors": (moments(vae=5), r"vae 5 is of another kind. Make the moments again"),
    "key.safetensors": (moments(colour="red"), DAMAGED_MOMENTS),
    "nan.safetensors": (moments(ONES * torch.nan), r"hold NaN or inf: make them again"),
    "inf.safetensors": (moments(ONES, ONES * torch.inf), r"hold NaN or inf: make them again"),
    "single.safetensors": (moments(ONES.float()), DAMAGED_MOMENTS),
    "flat.safetensors": (moments(ONES[0]), DAMAGED_MOMENTS),
    "unequal.safetensors": (moments(ONES, ONES[1:]), DAMAGED_MOMENTS),
    "nothing.safetensors": (moments(ONES[:0]), r"hold nothing: make them again"),
    "negative.safetensors": (moments(2 * ONES, ONES), r"holds variances below zero, which no data has. Make"),
    "hostile.pt": (pickle.dumps(Touches()), REFUSED_PICKLE),
    "hostile_zip.pt": (pickled({"Expectation_x_0": Touches()}), REFUSED_PICKLE),
    "fake_zip.pt": (zipped(), REFUSED_PICKLE),
    "list.pt": (pickled([X0]), r"holds a list, not a dictionary of tensors"),
    "weights.pt": (pickled({"weight": X0}), r"holds \['weight'\], not moments"),
    "view.pt": (
        pickled({"Expectation_x_0": torch.zeros(1).expand(10**5, 10**4, 10, 10), "trCov_d": 1.0}),
        r"Expectation_x_0 is no plain tensor of real numbers: refused",
    ),
    "sparse.pt": (
        pickled({"Expectation_x_0": X0.to_sparse(), "trCov_d": 1.0}),
        r"is no plain tensor|neither safetensors",
    ),
    "complex.pt": (pickled({"Expectation_x_0": X0 * 1j, "trCov_d": 1.0}), r"is no plain tensor of real numbers"),
    "minus.pt": (pickled({"Expectation_x_0": X0, "trCov_d": -1.0}), r"no variance is below zero. Download or make it"),
    "nan.pt": (
        pickled({"Expectation_x_0": X0, "trCov_d": float("nan")}),
        r"no variance is below zero. Download or make",
    ),
    "vector.pt": (
        pickled({"Expectation_x_0": X0, "trCov_d": torch.ones(3)}),
        r"damaged or was edited: .*Download or make",
    ),
    "word.pt": (
        pickled({"Expectation_x_0": X0, "trCov_d": "one"}),
        r"damaged or was edited: .*Download or make it again",
    ),
    "pipe.pt": (os.mkfifo, r"pipe.pt: a pipe; give a regular file"),
    "device.pt": (lambda path: path.symlink_to("/dev/zero"), r"device.pt: a device; give a regular file"),
    "folder.pt": (lambda path: (path.mkdir(), (path / "x").touch()), r"folder.pt holds no moments file"),
}


@pytest.mark.parametrize("name", BAD_MOMENTS)
def test_moments_that_are_none(here, refused, name):
    content, reason = BAD_MOMENTS[name]
    reasons = [f"{name}.*{reason}|{reason}"]
    refused(*BASE, "photo.png", "--init", name, reasons=reasons, files={name: content})
    refused(*BASE, "photo.png", "--init", name, "--dry-run", reasons=reasons)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (moments(model="another", vae="AutoencoderKL/0.13025/0badcafe"), r"these moments belong to another"),
        (
            moments(torch.zeros(16, 4, 2, 2).double()),
            r"these moments have 16 channels .*the latents have 4: make moments",
        ),
    ],
)
def test_moments_of_another_model(here, refused, content, reason):
    refused(
        *BASE,
        "photo.png",
        "--quiet",
        "--init",
        "m.safetensors",
        reasons=[reason],
        files={"m.safetensors": content},
        loads=True,
    )


def test_control_moments_of_another_size(here, unleak):
    Path("m.safetensors").write_bytes(moments(torch.zeros(4, 7, 3, 5).double(), model="tiny", fps=7))
    assert unleak(*BASE, "photo.png", "--quiet", "--init", "m.safetensors").status == 0


# ---- models --------------------------------------------------------------------------------------------------------


def index(**parts):
    return json.dumps({"_class_name": "StableVideoDiffusionPipeline", **parts}).encode()


UNET = "diffusers", "UNetSpatioTemporalConditionModel"
NO_PIPELINE = r"model other: no pipeline there; it needs the model_index.json that diffusers saves"
DAMAGED_FILE = r"(other|EulerDiscreteScheduler).* damaged.*; save or download"
BAD_MODELS = {
    "text": ({"model_index.json": b"nano"}, DAMAGED_FILE),
    "list": ({"model_index.json": b"[]"}, r"should be a JSON object, given \[\]; save or download the pipeline again"),
    "no class": ({"model_index.json": b"{}"}, NO_PIPELINE),
    "class 5": ({"model_index.json": b'{"_class_name": 5}'}, NO_PIPELINE),
    "binary": ({"model_index.json": b"\xff\xfe"}, r"not a text file in UTF-8 but in UTF-16"),
    "deep": ({"model_index.json": b"[" * 100_000}, r"JSON nested too deeply"),
    "index folder": ({"model_index.json/x": b""}, NO_PIPELINE),
    "os.system": ({"model_index.json": b'{"_class_name": "os.system"}'}, r"os.system is no pipeline of the diffusers"),
    "dunder": ({"model_index.json": b'{"_class_name": "__loader__"}'}, r"__loader__ is no pipeline of the diffusers"),
    "empty part": ({"model_index.json": index(unet=[])}, DAMAGED_FILE),
    "size": ({"model_index.json": index(unet=UNET), "unet/config.json": b'{"sample_size": {"a": 1}}'}, DAMAGED_FILE),
    "levels": ({"model_index.json": index(unet=UNET), "unet/config.json": b'{"block_out_channels": 5}'}, DAMAGED_FILE),
    "frames": (
        {"model_index.json": index(unet=UNET), "unet/config.json": b'{"num_frames": "many"}'},
        r"num_frames .*'many'",
    ),
    "words": ({"model_index.json": index(unet=UNET), "unet/config.json": b'{"sample_size": "big"}'}, DAMAGED_FILE),
    "schedule": (
        {
            "model_index.json": index(scheduler=["diffusers", "EulerDiscreteScheduler"]),
            "scheduler/scheduler_config.json": b'{"_class_name": "EulerDiscreteScheduler", "beta_schedule": "steep"}',
        },
        DAMAGED_FILE,
    ),
    "steps": (
        {
            "model_index.json": index(scheduler=["diffusers", "EulerDiscreteScheduler"]),
            "scheduler/scheduler_config.json": b'{"_class_name": "EulerDiscreteScheduler", "num_train_timesteps": "x"}',
        },
        r"num_train_timesteps should be a whole number from 1 to 100000, given 'x'",
    ),
}


@pytest.mark.parametrize("what", BAD_MODELS)
def test_a_folder_that_is_no_model(here, refused, what):
    files, reason = BAD_MODELS[what]
    files = {f"other/{name}": content for name, content in files.items()}
    refused("generate", "photo.png", "--model", "other", reasons=[reason], files=files)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


DAMAGES = {
    "no weights": lambda folder: next((folder / "unet").glob("*.safetensors")).unlink(),
    "cut weights": lambda folder: cut(next((folder / "unet").glob("*.safetensors"))),
    "empty weights": lambda folder: next((folder / "vae").glob("*.safetensors")).write_bytes(b""),
    "pickled weights": lambda folder: next((folder / "unet").glob("*.safetensors")).rename(
        folder / "unet/diffusion_pytorch_model.bin"
    ),
    "foreign weights": lambda folder: next((folder / "unet").glob("*.safetensors")).write_bytes(save({"x": ONES})),
    "wrong shapes": lambda folder: rewrite(folder / "unet/config.json", cross_attention_dim=24),
    "unknown blocks": lambda folder: rewrite(folder / "unet/config.json", down_block_types=["A", "B"]),
    "no scheduler": lambda folder: (folder / "scheduler/scheduler_config.json").unlink(),
    "no encoder": lambda folder: (folder / "image_encoder/config.json").write_bytes(b"{"),
    "foreign code": lambda folder: rewrite(folder / "model_index.json", unet=["hacked", "Unet"]),
    "a function": lambda folder: rewrite(folder / "model_index.json", unet=["os", "system"]),
    "no such class": lambda folder: rewrite(folder / "model_index.json", unet=["diffusers", "UNetOfMine"]),
    "short part": lambda folder: rewrite(folder / "model_index.json", vae=["diffusers"]),
    "part missing": lambda folder: rewrite(folder / "model_index.json", vae=None),
}


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("what", DAMAGES)
def test_a_model_with_damaged_files(here, refused, tiny_folder, what):
    shutil.copytree(tiny_folder, "other")
    Path("hacked.py").write_text("from pathlib import Path\nPath('hacked').touch()\n")
    DAMAGES[what](Path("other"))
    refused(*BASE, "photo.png", "--quiet", "--model", "other", reasons=[r"other"], loads=True)


# ---- other pipelines -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--size", "20x16"], "size 20x16: wan22 takes multiples of 16"),
        (["--num-frames", "8"], r"8 frames: wan22 makes 4k \+ 1; give 5 or 9"),
        (["--guidance", "1:3"], "has one guidance for all frames; give 3"),
        (["--noise-aug", "0.1"], "--noise-aug: a WanImageToVideoPipeline has no noise_aug_strength"),
        (
            ["--guidance", "1", "--negative-prompt", "blur"],
            "no effect at guidance_scale 1; raise it above 1 with --guid",
        ),
        (["--start", "sigma=1.5"], "sigma 1.5 lies outside this RF process"),
        (["--fix", "low-pass=1"], "FACTOR 1 is outside"),
        (["--fix", "low-pass=0.5:"], "SHARE is empty"),
        (["--fix", "condition-noise=nan"], "BETA nan is outside"),
        (["--fix", "sharpen"], "there is no fix 'sharpen'"),
        (["--fix", "guidance-interval=..soon"], "start 'soon' is not understood"),
        (["--fix", "guidance-interval=..sigma=1.5"], "sigma 1.5 lies outside this RF process"),
        (["--fix", "guidance-interval=0.9T..0.2T"], "low 0.9T is not below high 0.2T in this noise process"),
        (["--init", "analytic"], "make them with `unleak stats"),
        (["--prompt", "a", "--prompts", "words.txt"], "--prompt is for all photos, --prompts for each its own"),
        (["--prompts", "words.txt"], "words.txt: 2 lines for 1 photos"),
        (["--set", "guidance_scale_2=high"], "this takes float"),
        (["--set", "prompt_embeds=[1]"], "prompt_embeds takes no text or number"),
    ],
)
def test_what_another_pipeline_cannot_be_asked(here, refused, pipeline_folder, arguments, reason):
    small = ("--size", "32x16", "--num-frames", 5, "--steps", 9, "--set", "max_sequence_length=8")
    files = {"words.txt": b"a dog\nruns\n"}
    command = ("generate", "photo.png", "--model", pipeline_folder("wan22"), *small, "--quiet", *arguments)
    refused(*command, reasons=[reason], files=files)


def test_a_strategy_that_the_pipeline_does_not_allow_is_refused_before_it_is_loaded(here, refused, pipeline_folder):
    command = ("generate", "photo.png", "--model", pipeline_folder("ltx"), "--quiet", "--fix", "low-pass=0.4")
    refused(*command, reasons=["LowPass cannot be attached to LTXImageToVideoPipeline: its image does not enter"])


def test_a_lora_that_is_damaged(here, refused, pipeline_folder):
    files = {"bad.safetensors": b"none"}
    small = ("--size", "32x16", "--num-frames", 5, "--steps", 9, "--set", "max_sequence_length=8", "--quiet")
    command = ("generate", "photo.png", "--model", pipeline_folder("wan22"), *small, "--lora", "bad.safetensors")
    refused(*command, reasons=["bad.safetensors: not of this model, or damaged"], files=files, loads=True)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("system", "system is no pipeline of the diffusers that is installed; unleak knows "),
        ("utils.logging", "is no pipeline of the diffusers that is installed"),
        ("AutoencoderKLWan", "is no pipeline of the diffusers that is installed"),
        (
            "StableDiffusionPipeline",
            "StableDiffusionPipeline: it makes images of a text (text-to-image)",
        ),
        (
            "WanVideoToVideoPipeline",
            "cannot attach to WanVideoToVideoPipeline: it starts from the caller's own video",
        ),
        ("WanVACEPipeline", "takes more than a photo; call it from Python, after unleak.apply(pipe)"),
        ("ConsisIDPipeline", "takes more than a photo"),
    ],
)
def test_folders_of_what_cannot_animate_a_photo(here, refused, kind, reason):
    files = {"other/model_index.json": json.dumps({"_class_name": kind}).encode()}
    refused("generate", "photo.png", "--model", "other", reasons=[re.escape(reason)], files=files)


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
    result = wan(photo, "--quiet", *options)
    assert (result.status, result.out, result.err) == (2, "", f"error: out of memory on cpu; {advice}\n")


def test_the_error_in_full_for_those_who_ask(generate, monkeypatch):
    monkeypatch.setenv("UNLEAK_DEBUG", "1")
    with pytest.raises(ValueError, match=r"no such file"):
        generate("none.jpg")
