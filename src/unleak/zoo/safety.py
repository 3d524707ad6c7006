"""What a model's files may say and hold: classes that are known, pickles of bounded size, archives that stay inside."""

import re
import tarfile
import zipfile
from collections.abc import Collection, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from unleak.zoo.classes import FAMILIES, own_parts

__all__ = ["check_index", "check_pickle", "safe_members"]

MAX_PICKLE = 40_000_000_000
"""Bytes; the largest checkpoint of the table has 11e9."""
MAX_ARCHIVE = 60_000_000_000
"""Bytes, unpacked."""


def check_index(index: Mapping[str, Any], where: str) -> None:
    """ValueError if a model_index.json names code that is not diffusers', transformers' or ours, or a path.

    diffusers calls the class that a model_index.json names. Of ours, a folder may name those that its own pipeline
    class lists, and no others.
    """
    named = index.get("_class_name")
    ours = own_parts(named) if isinstance(named, str) else frozenset()
    for name, value in index.items():
        if not isinstance(value, list):
            if name == "_class_name" and not (isinstance(value, str) and re.fullmatch(r"[A-Z]\w*", value)):
                raise ValueError(f"{where}: its pipeline class {value!r} is none of diffusers': refused")
            continue
        if name.startswith("_"):
            if name == "_class_name":
                raise ValueError(f"{where}: its pipeline class {value!r} is code of its own: refused")
            continue
        if not re.fullmatch(r"[A-Za-z]\w*", name):
            raise ValueError(f"{where}: a part is named {name!r}, which is no name of a part: refused")
        if len(value) == 2 and not any(value):
            continue
        if len(value) != 2 or not _is_known(*value, ours):
            part = ".".join(str(one) for one in value)
            raise ValueError(
                f"{where}: its model_index.json names {part} for {name}; only classes of diffusers, transformers and "
                "unleak are loaded, never a model's own code: refused"
            )


def _is_known(library: Any, kind: Any, ours: Collection[tuple[str, str]]) -> bool:
    if not isinstance(library, str) or not isinstance(kind, str) or not re.fullmatch(r"[A-Z]\w*", kind):
        return False
    if library.startswith(f"{FAMILIES}."):
        return (library, kind) in ours
    if library == "transformers":
        return not kind.startswith("Auto")  # those may run the code that a configuration names
    if library == "diffusers":
        return kind != "AutoModel"
    return library.isidentifier() and find_spec(f"diffusers.pipelines.{library}") is not None


def check_pickle(path: Path, *, most: int = MAX_PICKLE) -> None:
    """ValueError for a pickle too large to be a checkpoint of this table, or one that would swell when read.

    What may be in it is limited where it is read: tensors and plain containers, by `weights_only`.
    """
    size = path.stat().st_size
    if size > most:
        raise ValueError(f"{path}: {size / 1e9:.3g} GB, more than the {most / 1e9:.3g} GB that any known model has")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > size:  # torch stores without compression
            raise ValueError(f"{path}: {unpacked / 1e9:.3g} GB unpacked from {size / 1e9:.3g} GB: refused")


def safe_members(archive: tarfile.TarFile, *, most: int = MAX_ARCHIVE) -> Iterator[tuple[tarfile.TarInfo, Path]]:
    """The regular files of an archive, each with the path below its folder; ValueError for any that would leave it."""
    total = 0
    for member in archive:
        path = PurePosixPath(member.name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in member.name:
            raise ValueError(f"the archive holds {member.name!r}, which would leave its folder: refused")
        if member.isdir():
            continue
        if not member.isfile():
            raise ValueError(f"the archive holds {member.name!r}, which is no plain file: refused")
        total += member.size
        if total > most:
            raise ValueError(f"the archive holds more than {most / 1e9:.3g} GB: refused")
        yield member, Path(*path.parts)
