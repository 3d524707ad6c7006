"""A package that somebody else keeps, if it is installed: found, named with its version, or told to be missing."""

from collections.abc import Callable
from contextlib import redirect_stdout
from hashlib import sha256
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["named", "required", "silent", "weights_digest"]

Made = TypeVar("Made")


def required(module: str, package: str) -> Any:
    """The module of `package`; ValueError, with the command that installs it, where it or what it needs is missing."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ValueError(f"{package} cannot be used here ({error}): pip install {package}") from error


def named(package: str) -> str:
    """With its version, as results say who made them."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} of unknown version"


def silent(call: Callable[[], Made]) -> Made:
    """What `call` returns; what it prints is not ours to say."""
    with redirect_stdout(StringIO()):
        return call()


def weights_digest(file: Path) -> str:
    """SHA-256 of a file with weights. ValueError if there is none: packages would download one to that place."""
    if not file.is_file():
        raise ValueError(f"{file}: no such file; give one with weights")
    with file.open("rb") as opened:
        digest = sha256()
        while piece := opened.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
