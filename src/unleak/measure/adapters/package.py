"""Other people's packages: find them, name them with their version, or say that they are missing."""

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
    """Import the module of `package`; ValueError with the command that installs it if anything is missing."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ValueError(f"{package} cannot be used here ({error}): pip install {package}") from error


def named(package: str) -> str:
    """Return the package's name with its version, as results say who made them."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} of unknown version"


def silent(call: Callable[[], Made]) -> Made:
    """Return what `call` returns, without what it prints."""
    with redirect_stdout(StringIO()):
        return call()


def weights_digest(file: Path) -> str:
    """Return the SHA-256 of a file with weights; ValueError if there is none: packages would download one."""
    if not file.is_file():
        raise ValueError(f"{file}: no such file; give one with weights")
    with file.open("rb") as opened:
        digest = sha256()
        while piece := opened.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
