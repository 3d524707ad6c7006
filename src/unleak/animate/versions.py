"""Versions of everything that decides the pixels and the numbers."""

import platform
from importlib import import_module
from importlib.metadata import version

from unleak import __version__

__all__ = ["versions"]


def versions() -> dict[str, str]:
    """Name -> version."""
    # OpenCV comes under several package names.
    own = {"unleak": __version__, "python": platform.python_version(), "opencv": import_module("cv2").__version__}
    return own | {name: version(name) for name in ("scipy", "torch", "diffusers", "transformers")}
