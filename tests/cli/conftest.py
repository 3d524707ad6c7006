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


@pytest.fixture
def photo(tmp_path):
    Image.effect_noise((48, 32), 90).convert("RGB").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"
