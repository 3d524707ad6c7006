from dataclasses import dataclass

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
    small = ("--size", "32x16", "--num-frames", 5, "--steps", 2, "--set", "max_sequence_length=8")
    return lambda *arguments: unleak("generate", "--model", pipeline_folder("wan22"), *small, *arguments)


@pytest.fixture
def photo(tmp_path):
    Image.effect_noise((48, 32), 90).convert("RGB").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"
