"""What people feed to `unleak stats`: one line, status 2, nothing encoded for nothing, every file as it was."""

import io
import json
import shlex
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from unleak.core.moments import LatentMoments, MomentsMeta
from unleak.data.video import write_video


@pytest.fixture
def here(tiny_folder, clips, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").symlink_to(tiny_folder)
    (tmp_path / "clips").symlink_to(clips)


BASE = ("stats", "--model", "tiny", "--size", "32x16", "--workers", 0)


def test_control(here, unleak):
    assert unleak(*BASE, "--videos", "clips", "--out", "m.safetensors").status == 0
    assert unleak(*BASE, "--videos", "clips", "--out", "m.safetensors", "--overwrite").status == 0


# ---- options -------------------------------------------------------------------------------------------------------

OPTIONS = {
    "--videos clips": r"Missing option '--out'",
    "--out m.safetensors": r"nothing to do; give --videos DIR, or --merge FILE twice",
    "--videos clips --out m.pt": r"--out m.pt: give a name that ends in .safetensors",
    "--videos clips --out ''": r"--out .: give a name that ends in .safetensors",
    "--videos none --out m.safetensors": r"none: no such file or folder",
    "--videos '' --out m.safetensors": r"an empty name; give a file, a folder or a pattern of videos",
    "--videos empty --out m.safetensors": r"empty: no videos in it; known endings are .avi",
    "--videos folder.mp4 --out m.safetensors": r"folder.mp4: no videos in it; known endings are",
    "--videos loop.mp4 --out m.safetensors": r"loop.mp4: no such file or folder",
    "--videos '*.mov' --out m.safetensors": r"\*.mov: no videos in it; known endings are",
    "--videos clips --out there.safetensors": r"there.safetensors exists; give --overwrite, another --out, or --merge",
    "--videos clips --out told.safetensors": r"told.json exists; give --overwrite, another --out",
    "--videos clips --out d.safetensors --overwrite": r"d.safetensors is a folder, where a file is to go; choose",
    "--videos clips --out p.safetensors": r"p.progress is a folder, where a file is to go; choose another --out",
    "--videos clips --out told.json/m.safetensors": r"told.json: cannot be written to .*; choose another folder",
    "--videos clips --out /proc/m.safetensors": r"/proc: cannot be written to .*; choose another folder",
    "--merge x --out m.safetensors --shard 1/2": r"--shard 1/2: for a single process with --videos, without --merge",
    # files to merge
    "--merge none.safetensors --out m.safetensors": r"no moments file at none.safetensors",
    "--merge '*.none' --out m.safetensors": r"--merge \*.none: no such files",
    "--merge '' --out m.safetensors": r"no moments file at \.",
    "--merge clips --out m.safetensors": r"no moments file at clips",
    "--merge there.safetensors --out m.safetensors": r"there.safetensors is neither safetensors nor a pickle",
    "--merge a.safetensors --merge ./a.safetensors --out m.safetensors": r"--merge a.safetensors is given twice",
    "--merge a.safetensors --merge narrow.safetensors --out m.safetensors": r"moments are of different latents \(shape",
    "--merge a.safetensors --merge faster.safetensors --out m.safetensors": r"moments are of different latents \(fps",
    "--merge a.safetensors --merge uncounted.safetensors --out m.safetensors": r"without a sample count cannot be",
    "--merge a.safetensors --merge foreign.safetensors --out m.safetensors": r"foreign.safetensors holds \['x'\], not",
    "--merge s.1-of-2.safetensors --out m.safetensors": r"s.1-of-2.safetensors is a shard, but .* does not say of",
    "--merge t.1-of-2.safetensors --out m.safetensors": r"t.1-of-2.safetensors is a shard, but .* does not say of",
    "--videos clips --out q.safetensors": r"q.4-of-8.progress is of a run cut in 8, this one is cut in 1; give as many",
}

# after --videos clips --out m.safetensors
VALUES = {
    "--size 20x20": r"size 20x20: tiny takes multiples of 16",
    "--size big": r"'--size': big: give width and height in pixels, .*such as 1024x576",
    "--num-frames 0": r"'--num-frames': .*0",
    "--num-frames 99999999": r"'--num-frames': .*99999999",
    "--fps 0": r"'--fps': .*0",
    "--fps nan": r"'--fps'",
    "--fps inf": r"'--fps': .*inf",
    "--fps 7/1": r"'--fps': .*7/1",
    "--clips-per-video 0": r"'--clips-per-video': .*0",
    "--max-clips 0": r"'--max-clips': .*0",
    "--max-failures 5%": r"'--max-failures': .*5%",
    "--max-failures 1.5": r"'--max-failures': .*1\.5",
    "--max-failures nan": r"'--max-failures'",
    "--batch-size 0": r"'--batch-size': .*0",
    "--seed -1": r"'--seed': .*\-1",
    "--seed one": r"'--seed': .*one",
    "--shard 3/2": r"--shard 3/2: give which of how many, such as 1/4",
    "--shard 0/2": r"--shard 0/2: give which of how many, such as 1/4",
    "--shard 1": r"--shard 1: give which of how many, such as 1/4",
    "--shard ''": r"'--shard': it is empty; give a value, or leave the option out",
    "--workers -1": r"'--workers': .*\-1",
    "--workers 1.5": r"'--workers': .*1\.5",
    "--seconds-per-video 0": r"0 seconds for a video: give more than 0",
    "--seconds-per-video nan": r"nan seconds for a video: give more than 0",
    "--memory-per-worker 0.1": r"0.1 GiB of memory for a worker: give 0.25 or more",
    "--memory-per-worker inf": r"inf GiB of memory for a worker: give 0.25 or more",
    "--model nanoo": r"model 'nanoo' is unknown: did you mean nano\?",
    "--model ''": r"'--model': it is empty; give a value, or leave the option out",
    "--model empty": r"model empty: no pipeline there; it needs the model_index.json",
    "extra": r"unexpected extra argument.*extra",
    "--moments": r"No such option: --moments",
}


def moments(count=3, shape=(4, 4, 2, 4), fps=7):
    mean = torch.zeros(shape).double()
    return lambda path: LatentMoments(count, mean, mean + 1, MomentsMeta("tiny", "vae", fps)).save(path)


THERE = {
    "there.safetensors": b"mine",
    "told.json": b"mine",
    "d.safetensors/x": b"mine",
    "p.progress/x": b"mine",
    "q.4-of-8.progress": b"mine",
    "empty/x.txt": b"",
    "folder.mp4": Path.mkdir,
    "loop.mp4": lambda path: path.symlink_to(path),
    "a.safetensors": moments(),
    "narrow.safetensors": moments(shape=(4, 4, 2, 2)),
    "faster.safetensors": moments(fps=30),
    "uncounted.safetensors": moments(count=None),
    "foreign.safetensors": save({"x": torch.ones(2)}),
    "s.1-of-2.safetensors": moments(),
    "t.1-of-2.safetensors": moments(),
    "t.1-of-2.json": json.dumps({"parts": [{"run": {"fps": 7}, "shard": "1/2", "skipped": "no"}]}).encode(),
}


@pytest.mark.parametrize("command", OPTIONS, ids=lambda command: command[:90])
def test_an_option_that_cannot_be_honoured(here, refused, command):
    refused(*BASE, *shlex.split(command), reasons=[OPTIONS[command]], files=THERE)


@pytest.mark.parametrize("values", VALUES, ids=lambda values: values[:60])
def test_a_value_that_cannot_be(here, refused, values):
    command = ("--videos", "clips", "--out", "m.safetensors", *shlex.split(values))
    refused(*BASE, *command, reasons=[VALUES[values]], files={"empty/x.txt": b""})


@pytest.mark.parametrize("name", ["WORLD_SIZE", "LOCAL_WORLD_SIZE"])
@pytest.mark.parametrize("value", ["", "two", "-1", "0"])
def test_an_environment_that_makes_no_sense(here, refused, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    reason = rf"{name}={value}: a launcher sets it to the number of processes; unset it"
    refused("stats", "--videos", "clips", "--out", "m.safetensors", reasons=[reason])


# ---- progress of earlier runs --------------------------------------------------------------------------------------

PROGRESS = {
    "empty": b"",
    "text": b"half",
    "other": save({"x": torch.ones(2)}),
    "list": save({"x": torch.ones(2)}, {"unleak_progress": "[]"}),
    "keys": save({"mean": torch.ones(2)}, {"unleak_progress": '{"skipped": [], "settings": {}}'}),
}


@pytest.mark.parametrize("what", PROGRESS)
def test_a_progress_that_is_none(here, refused, what):
    reason = r"m.progress is not the progress of a run, or damaged; move or delete it"
    command = (*BASE, "--quiet", "--videos", "clips", "--out", "m.safetensors")
    refused(*command, reasons=[reason], files={"m.progress": PROGRESS[what]}, loads=True)


# ---- videos --------------------------------------------------------------------------------------------------------


def video(suffix="mp4", frames=6, size=(24, 40)):
    def write(path):
        noise = np.random.default_rng(0).integers(0, 256, (frames, *size, 3), dtype=np.uint8)
        write_video(noise, path, fps=7, format=suffix)

    return write


def cut(share, suffix="mp4"):
    def write(path):
        video(suffix)(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])

    return write


def sound(path):
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())


def picture(path):
    Image.new("RGB", (40, 24)).save(path, "PNG")


def vast(path):
    """A GIF whose header says 65,535 x 65,535."""
    buffer = io.BytesIO()
    Image.new("P", (40, 24)).save(buffer, "GIF")
    content = buffer.getvalue()
    path.write_bytes(content[:6] + b"\xff" * 4 + content[10:])


DAMAGED = r"truncated or damaged \(.*; copy or export it again"
NO_PICTURES = r"no video in it that can be decoded; give a file with pictures"
NO_VIDEO = r"not a video that can be read; give an MP4, MOV, WebM"
VIDEOS = {
    "empty.mp4": (b"", r"the file is empty \(0 bytes\); copy or download it again"),
    "text.mp4": (b"I am no video", NO_VIDEO),
    "page.mp4": (b"<!DOCTYPE html><title>404</title>", NO_VIDEO),
    "archive.mp4": (b"PK\x03\x04" + b"\0" * 100, NO_VIDEO),
    "photo.mp4": (picture, NO_VIDEO),
    "playlist.mp4": (b"#EXTM3U\n#EXTINF:2,\nclips/a.mp4\n", r"a playlist of other files; give an MP4"),
    "script.mp4": (b"ffconcat version 1.0\nfile clips/a.mp4\n", r"a playlist of other files; give an MP4"),
    "half.mp4": (cut(0.5), DAMAGED),
    "head.mp4": (cut(0.02), f"{DAMAGED}|{NO_PICTURES}"),
    "zeros.mp4": (b"\0\0\0\x18ftypisom" + b"\0" * 4000, DAMAGED),
    "noise.mkv": (b"\x1aE\xdf\xa3" + np.random.default_rng(0).bytes(4000), DAMAGED),
    "noise.avi": (b"RIFF\0\1\0\0AVI " + np.random.default_rng(0).bytes(4000), f"{DAMAGED}|{NO_PICTURES}"),
    "noise.gif": (b"GIF89a" + np.random.default_rng(0).bytes(4000), f"{DAMAGED}|frames of"),
    "noise.ts": (b"G" + b"\xff" * 187 + b"G" + b"\xff" * 187, f"{DAMAGED}|{NO_PICTURES}"),
    "sound.mp4": (sound, NO_PICTURES),
    "short.mp4": (video(frames=2), r"2 frames at 7 Hz from 0 s on, 4 needed; give a longer video, fewer frames or"),
    "still.gif": (video("gif", frames=1), r"1 frames at 7 Hz from 0 s on, 4 needed; give a longer video|" + DAMAGED),
    "vast.gif": (vast, f"frames of 65535x65535; scale the video down first|{DAMAGED}"),
}


@pytest.mark.parametrize("name", VIDEOS)
def test_a_video_that_cannot_be_used(here, refused, name):
    content, reason = VIDEOS[name]
    command = (*BASE, "--quiet", "--videos", name, "--out", "m.safetensors")
    refused(
        *command,
        reasons=[rf"skipped {name}: ({reason})", "1 of 1 videos cannot be used, more than the share of 0.05 allowed"],
        files={name: content},
        loads=True,
    )
