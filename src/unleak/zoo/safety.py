"""Check what a model's files say and hold: known classes, pickles of bounded size, archives that stay inside."""

import errno
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unleak.zoo.classes import FAMILIES, own_parts

__all__ = ["check_index", "check_pickle", "unpack"]

MAX_PICKLE = 40_000_000_000
"""Bytes; the largest checkpoint of the table has 11e9."""
MAX_ARCHIVE = 60_000_000_000
"""Bytes, unpacked."""
MAX_MEMBERS = 100_000
_MAX_FIELDS = 1_000_000  # bytes of a member's long name, or of its further fields
_FIELDS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)

# What tarfile raises for damaged and hostile archives, seen by making them; OSError with these numbers is of names.
_DAMAGED = (
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    ValueError,
    LookupError,
    OverflowError,
    MemoryError,
    RecursionError,
)
_NAMES = (
    errno.ENAMETOOLONG,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.ELOOP,
    errno.ENOENT,
    errno.EINVAL,
)

_INDIRECT = r"^Auto(?!encoder|Guidance)|^FlashPack|^Onnx|Pipeline"
"""Of classes that load what another file names: an Auto class the code of a configuration, a pipeline in a pipeline the
classes of a second model_index.json, a FlashPack class another class, and ONNX a graph with operators of its own."""


def check_index(index: Mapping[str, Any], where: str) -> None:
    """Raise ValueError if a model_index.json names code that is not diffusers', transformers' or ours, or a path.

    diffusers imports and calls the class that a model_index.json names. Of unleak's classes and of those of families
    that an installed package has registered, a folder may name the ones that its own pipeline class lists as
    `unleak_parts`, and no others: the author of the family has chosen them, not the author of the folder.
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
        if len(value) != 2 or not _is_known(value[0], value[1], ours):
            part = ".".join(str(one) for one in value)
            raise ValueError(
                f"{where}: its model_index.json names {part} for {name}; only classes of diffusers, transformers and "
                "unleak are loaded, never a model's own code: refused"
            )


def _is_known(library: Any, kind: Any, ours: Collection[tuple[str, str]]) -> bool:
    if not isinstance(library, str) or not isinstance(kind, str) or not re.fullmatch(r"[A-Z]\w*", kind):
        return False
    if (library, kind) in ours or library.startswith(f"{FAMILIES}."):
        return (library, kind) in ours
    if re.search(_INDIRECT, kind):
        return False
    if library in ("transformers", "diffusers"):
        return True
    # Only the folders of pipelines: beside them are modules with many other names in them.
    package = find_spec(f"diffusers.pipelines.{library}") if re.fullmatch(r"[a-z][a-z0-9_]*", library) else None
    return package is not None and package.submodule_search_locations is not None


def check_pickle(path: Path, *, most: int = MAX_PICKLE) -> None:
    """Raise ValueError for a pickle too large to be a known checkpoint, or one that would swell when read.

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


def unpack(archive: Path, folder: Path, *, most: int = MAX_ARCHIVE) -> None:
    """Unpack a tar archive into `folder`.

    Raises ValueError, in one line, for an archive that is damaged, that holds more than `most` bytes, or that has
    something in it which would be written outside `folder` or is no file, folder or link within it.
    """
    if not hasattr(tarfile, "data_filter"):
        raise ValueError("this Python cannot unpack archives safely; update it to 3.11.4 or newer")
    try:
        with tarfile.open(archive, tarinfo=_Member) as packed:
            packed.extractall(folder, members=_bounded(packed, most), filter="data")
    except tarfile.FilterError as error:
        raise ValueError(f"the archive is refused: {error}") from error
    except _RefusedError:
        raise
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and error.errno not in _NAMES:
            raise  # of the disk, such as one that is full
        reason = str(error).partition("\n")[0].rstrip(":") or type(error).__name__
        raise ValueError(f"the archive is damaged ({reason})") from error


class _RefusedError(ValueError):
    pass


class _Member(tarfile.TarInfo):
    """A member whose long name and further fields, which are read into memory at once, have a bounded size."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        """Read a header; ValueError if it announces too long a name or too many fields."""
        member = super().frombuf(buf, encoding, errors)
        if member.size > _MAX_FIELDS and member.type in _FIELDS:
            raise _RefusedError(f"the archive has a name or fields of {member.size / 1e6:.3g} MB: refused")
        return member


def _bounded(archive: tarfile.TarFile, most: int) -> Iterator[tarfile.TarInfo]:
    total = 0
    for number, member in enumerate(archive):
        total += member.size
        if total > most or number >= MAX_MEMBERS:
            raise _RefusedError(f"the archive holds more than {most / 1e9:.3g} GB or {MAX_MEMBERS} files: refused")
        yield member
