"""Find photos in bulk, each with a prompt of its own: lists in a file, and folders with a file of prompts."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field

from unleak.data.folder import find_images, is_medium
from unleak.data.image import IMAGE_SUFFIXES, MediaError
from unleak.data.reading import Place, Row, Text, json_rows, parse_values, table_rows, text_lines

__all__ = ["Entry", "find_entries", "read_list", "read_prompt_folder", "read_prompts"]

LIST_SUFFIXES = frozenset({".jsonl", ".csv"})

_PHOTO = ("dir", "image", "path")
_LONGEST_NAME = 240  # bytes, of the 255 that file systems take: the rest is for endings


@dataclass(frozen=True)
class Entry:
    """A photo, what happens in its video, and where it moves."""

    photo: Path
    prompt: str | None = None
    mask: Path | None = None
    name: str | None = None
    """Of the video; None: that of the photo."""
    origin: str | None = None
    """Where it was asked for, such as `shots.jsonl, line 3`."""
    seed: int | None = None
    """Of its noise, added to the seed of all."""


def find_entries(
    sources: Iterable[str | Path], *, allow_outside: bool = False, prompt_folders: bool = True
) -> list[Entry]:
    """Find what `sources` ask for, in their order: lists (.jsonl, .csv), prompt folders, photos, folders, patterns.

    A folder with photos and exactly one .txt file is a prompt folder, unless `prompt_folders` is false. With
    `allow_outside`, lists may name photos outside the list's own folder. Raises MediaError, in one line, for what
    cannot be read, and for two entries of lists whose videos would have the same name.
    """
    entries: list[Entry] = []
    for source in sources:
        path = Path(source)
        if path.suffix.lower() in LIST_SUFFIXES and not path.is_dir():
            entries += read_list(path, allow_outside=allow_outside)
        elif prompt_folders and path.is_dir() and len(_text_files(path)) == 1 and _photos(path):
            entries += read_prompt_folder(path)
        else:
            entries += [Entry(photo) for photo in find_images([source])]
    return list(_apart(dict.fromkeys(entries)))


def read_list(path: str | Path, *, allow_outside: bool = False) -> list[Entry]:
    """Read a list: JSON lines such as {"dir": "shots/1.png", "text": "fireworks"}, or a CSV file with a header.

    The photo is `dir`, `image` or `path`; its prompt is `text`, `prompt` or `caption`. A row may also have `mask`, `id`
    (the video's name), `seed` (a whole number of 0 or more), and other columns, which do not matter. A photo is looked
    for from the list's folder, then from the current one, as the paper's lists are written. With links followed, it has
    to be in the list's folder or below it.

    Raises MediaError, in one line that names the line of the list.
    """
    path = Path(path)
    rows: Iterator[tuple[str, Mapping[str, Any]]]
    if path.suffix.lower() == ".csv":
        rows = ((where, {k: v.strip() for k, v in row.items()}) for where, row in table_rows(path, _PHOTO))
    else:
        rows = json_rows(path, '{"dir": "1.png", "text": "fireworks"}')
    entries = [_entry(path, origin, row, allow_outside=allow_outside) for origin, row in rows]
    if not entries:
        raise MediaError(f"{path}: no photos in it; give a line for each")
    return entries


def read_prompt_folder(folder: str | Path) -> list[Entry]:
    """Pair the photos of a folder, by name, with the lines of its one .txt file, in order; blank lines do not count.

    Raises MediaError if there is no such file or more than one, or not as many prompts as photos.
    """
    folder = Path(folder)
    texts, photos = _text_files(folder), _photos(folder)
    if len(texts) != 1:
        raise MediaError(
            f"{folder}: {len(texts)} .txt files in it; a prompt folder has one, with a line for each photo"
        )
    prompts = [line for line in text_lines(texts[0]) if line]
    if len(prompts) != len(photos):
        raise MediaError(
            f"{texts[0]}: {len(prompts)} prompts for the {len(photos)} photos beside it; give one for each, in the"
            f" order of their names, or name the photos without it, such as {folder}/*.png"
        )
    return [Entry(photo, prompt, origin=str(folder)) for photo, prompt in zip(photos, prompts, strict=True)]


def read_prompts(path: str | Path, photos: int) -> list[str]:
    """Read a prompt for each of `photos` photos, the lines of a text file; MediaError for another number of lines."""
    lines = text_lines(path)
    if len(lines) != photos:
        raise MediaError(f"{path}: {len(lines)} lines for {photos} photos; give one line for each, in order")
    return lines


def _file_name(text: str) -> str:
    if text in (".", "..") or Path(text).name != text or "\\" in text:
        raise ValueError("is no name for a file: give one without slashes")
    if len(os.fsencode(text)) > _LONGEST_NAME:
        raise ValueError(f"is too long for a file's name: give at most {_LONGEST_NAME} bytes")
    return text


def _whole(value: Any) -> Any:
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,18}", str(value)):
        raise ValueError("is no whole number of 0 or more")
    return int(value)


class _Photo(Row):
    """A row of a list of photos."""

    photo: Place | None = Field(None, validation_alias=AliasChoices(*_PHOTO))
    prompt: Text | None = Field(None, validation_alias=AliasChoices("text", "prompt", "caption"))
    mask: Place | None = None
    name: Annotated[Place, AfterValidator(_file_name)] | None = Field(None, validation_alias="id")
    seed: Annotated[int, BeforeValidator(_whole)] | None = None


def _entry(path: Path, origin: str, values: Mapping[str, Any], *, allow_outside: bool) -> Entry:
    row = parse_values(values, _Photo, origin)
    if row.photo is None:
        raise MediaError(f"{origin}: no photo; give it as {', '.join(_PHOTO[:-1])} or {_PHOTO[-1]}")
    photo = _inside(path, origin, row.photo, allow_outside=allow_outside)
    mask = None if row.mask is None else _inside(path, origin, row.mask, allow_outside=allow_outside)
    return Entry(photo, row.prompt, mask, row.name, origin, row.seed)


def _inside(path: Path, origin: str, name: str, *, allow_outside: bool) -> Path:
    """Find a file that a list names; MediaError if it is not there, or outside the list's folder."""
    tried = [path.parent / name, Path(name)]
    found = next((file for file in tried if file.is_file()), None)
    if not allow_outside:
        folder = path.parent.resolve()
        inside = [file for file in tried if file.is_file() and file.resolve().is_relative_to(folder)]
        if not inside and (found is not None or not tried[0].resolve().is_relative_to(folder)):
            raise MediaError(
                f"{origin}: {name} is outside the list's folder; give --allow-outside if you trust the list"
            )
        found = next(iter(inside), None)
    if found is None:
        raise MediaError(f"{origin}: {name}: no such file, neither in {path.parent} nor from here")
    return found


def _text_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.txt") if file.is_file() and not file.name.startswith("."))


def _photos(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if is_medium(file, IMAGE_SUFFIXES)]


def _apart(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Give the same entries; MediaError for two of lists whose videos would have the same name."""
    taken: dict[str, Entry] = {}
    for entry in entries:
        name = entry.name or entry.photo.stem
        if (other := taken.setdefault(name, entry)) is not entry and (entry.origin or other.origin):
            raise MediaError(
                f"{entry.origin or entry.photo}: its video would have the name of that of"
                f" {other.origin or other.photo}, {name}; give each an id of its own"
            )
        yield entry
