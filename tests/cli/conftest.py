import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unleak.cli import main


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


@pytest.fixture
def unleak(capfd):
    """Run a command line in this process; stdout and stderr as the terminal would see them."""

    def run(*arguments):
        capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        return Result(status, *capfd.readouterr())

    return run


@pytest.fixture
def generate(unleak, tiny_folder, tmp_path, monkeypatch):
    """`unleak generate` with the tiny model, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: unleak("generate", "--model", tiny_folder, "--size", "16x16", "--steps", 1, *arguments)


def _saved(tiny, folder):
    """A pipeline of tests.tiny on disk, with an encoder for its prompts where it came without."""
    from transformers import T5Config, T5EncoderModel

    from tests.tiny.text import words

    pipe = tiny.build()
    if pipe.text_encoder is None:
        config = pipe.transformer.config
        sizes = {"vocab_size": 8, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
        encoder = T5EncoderModel(T5Config(d_model=config.get("text_dim") or config.get("caption_channels"), **sizes))
        pipe.register_modules(tokenizer=words(), text_encoder=encoder.eval())
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory):
    """Name of a pipeline of tests.tiny -> its folder: Wan 2.2 of both kinds, LTX, CogVideoX, PIA."""
    from functools import cache

    from tests.tiny import cogvideox, ltx, sd15, wan

    tiny = {one.name: one for family in (cogvideox, ltx, sd15, wan) for one in family.TINY}
    return cache(lambda name: _saved(tiny[name], tmp_path_factory.mktemp("models") / name))


@pytest.fixture
def wan(unleak, pipeline_folder, tmp_path, monkeypatch):
    """`unleak generate` with a tiny Wan 2.2, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    small = ("--size", "32x16", "--num-frames", 5, "--steps", 9, "--set", "max_sequence_length=8")
    return lambda *arguments: unleak("generate", "--model", pipeline_folder("wan22"), *small, *arguments)


@pytest.fixture
def photo(tmp_path):
    noise = np.random.default_rng(0).normal(128, 90, (32, 48)).clip(0, 255)  # Pillow's effect_noise cannot be seeded
    Image.fromarray(noise.astype(np.uint8)).convert("RGB").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """A folder with two videos: 6 frames of 40x24 at 7 Hz."""
    from unleak.data.video import write_video

    folder = tmp_path_factory.mktemp("videos") / "clips"
    folder.mkdir()
    for k, name in enumerate("ab"):
        frames = np.random.default_rng(k).integers(0, 256, (6, 24, 40, 3), dtype=np.uint8)
        write_video(frames, folder / f"{name}.mp4", fps=7)
    return folder


def everything_in(folder):
    """Each name below `folder` with its content: bytes of a file, target of a link, kind of anything else."""
    found = {}
    for place, folders, names in os.walk(os.fsencode(folder)):
        for name in folders + names:
            path = os.path.join(place, name)
            if os.path.islink(path):
                found[path] = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    found[path] = file.read()
            else:
                found[path] = stat.S_IFMT(os.lstat(path).st_mode)
    return found


@pytest.fixture
def refused(unleak, monkeypatch):
    """Check that a command line is refused: status 2, nothing on stdout, on stderr one line for each of `reasons`,
    which it matches; everything in the current folder as it was, nothing more; no model loaded unless it `loads`.

    `files` are made before: bytes are written to the name, a function is called with it.
    """
    from unleak.zoo import hub

    def refuse(*arguments, reasons, files=None, loads=False):
        for name, content in (files or {}).items():
            path = Path(os.fsdecode(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            content(path) if callable(content) else path.write_bytes(content)
        if not loads:
            monkeypatch.setattr(hub, "load", lambda *_, **__: pytest.fail("a model was loaded"))
        before = everything_in(Path.cwd())
        result = unleak(*arguments)
        told = result.err.splitlines()
        assert (result.status, result.out, len(told)) == (2, "", len(reasons)), result.err
        for line, reason in zip(told, reasons, strict=True):
            assert line.startswith("error: "), line
            assert re.search(reason, line), f"{reason!r} is not in {line!r}"
        assert everything_in(Path.cwd()) == before

    return refuse
