"""Facts of files, which several tests compare."""

import hashlib
from pathlib import Path

__all__ = ["sha"]


def sha(file: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
