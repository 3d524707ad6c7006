"""Find the files that a name, a folder or a pattern on the command line stands for."""

import glob
from collections.abc import Iterable, Set
from pathlib import Path

from unleak.data.files import VIDEO_SUFFIXES
from unleak.data.image import IMAGE_SUFFIXES, MediaError


def find_images(sources: Iterable[str | Path]) -> list[Path]:
    """Find the photos of `sources`: files, folders, patterns such as "shots/*.jpg"; see `find_media`."""
    return find_media(sources, IMAGE_SUFFIXES, "images")


def find_videos(sources: Iterable[str | Path]) -> list[Path]:
    """Find the videos of `sources`, including those in sub-folders; see `find_media`."""
    return find_media(sources, VIDEO_SUFFIXES, "videos", recursive=True)


def is_medium(path: Path, suffixes: Set[str]) -> bool:
    """Return whether a path that a folder holds is one of its media by its name; it may be no regular file."""
    return path.suffix.lower() in suffixes and not path.name.startswith(".") and not path.is_dir()


def find_media(sources: Iterable[str | Path], suffixes: Set[str], kind: str, *, recursive: bool = False) -> list[Path]:
    """Find files in the order given, those of a folder or pattern by name, each once.

    A folder or pattern gives its visible files with one of `suffixes`; a file that is named itself is taken whatever
    its ending is. Pipes, sockets, devices and broken links are returned too, so that whoever opens them names them.
    Raises MediaError if a source does not exist or holds none.
    """
    found: dict[Path, None] = {}
    for source in sources:
        if not str(source):  # an unset variable of a script, and no wish for all that is in the current folder
            raise MediaError(f"an empty name; give a file, a folder or a pattern of {kind}")
        path = Path(source)
        if path.is_dir():
            matches = sorted(path.rglob("*") if recursive else path.iterdir())
        elif path.exists():
            found[path] = None
            continue
        elif glob.has_magic(str(source)):
            matches = sorted(map(Path, glob.glob(str(source), recursive=True)))
        else:
            raise MediaError(f"{path}: no such file or folder")
        chosen = [m for m in matches if is_medium(m, suffixes)]
        if not chosen:
            raise MediaError(f"{path}: no {kind} in it; known endings are {' '.join(sorted(suffixes))}")
        found.update(dict.fromkeys(chosen))
    return list(found)
