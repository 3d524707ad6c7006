"""Choices of the nodes, and the folder of ComfyUI that holds moments."""

from collections.abc import Sequence

import folder_paths

__all__ = ["FOLDER", "chosen", "moments_files"]

FOLDER = "unleak"
"""Name of the folder in ComfyUI's models that holds moments."""


def chosen(name: str, value: str, choices: Sequence[str]) -> str:
    """Return `value`; ValueError if it is none of `choices`, which ComfyUI's server does not check."""
    if value not in choices:
        raise ValueError(f"{name} {value!r} is unknown: choose {', '.join(choices)}.")
    return value


def moments_files() -> list[str]:
    """Return the names of the moments files in models/unleak."""
    try:
        names = folder_paths.get_filename_list(FOLDER)
    except FileNotFoundError:  # somebody removed the folder while ComfyUI was running
        return []
    return [name for name in names if name.endswith(".safetensors")]
