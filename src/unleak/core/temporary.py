"""Names for what is being written: hidden, and telling whose they are, so that what a killed process left can go."""

import hashlib
import os
import platform
import shutil
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

__all__ = ["temporary_beside"]


def temporary_beside(path: Path) -> Path:
    """A name in the folder of `path` that nothing has yet.

    What ended processes of this machine left there under such names is removed, once in a process and folder.
    """
    _clear(path.parent.absolute())
    # Not made of the target's name, which may be as long as the file system allows.
    return path.parent / f".{_machine()}-{os.getpid()}-{uuid4().hex[:12]}.part"


@lru_cache(maxsize=1024)
def _clear(folder: Path) -> None:
    for left in folder.glob(f".{_machine()}-*-*.part"):
        pid = left.name.split("-")[1]
        if pid.isdecimal() and _has_ended(int(pid)):
            with suppress(OSError):  # another process clears too, or may and this one may not
                shutil.rmtree(left) if left.is_dir() else left.unlink()


@lru_cache
def _machine() -> str:
    """Process numbers mean something on one machine only, and a folder may be shared by several."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _has_ended(pid: int) -> bool:
    if os.name != "posix":  # elsewhere to ask is to end it
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is somebody else's
        return False
    return False
