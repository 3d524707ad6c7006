"""Photos in bulk, each with a prompt of its own: lists in a file, and folders with a file of prompts."""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from unleak.data.folder import find_images
from unleak.data.image import IMAGE_SUFFIXES, MediaError

__all__ = ["Entry", "find_entries", "read_list", "read_prompt_folder"]

LIST_SUFFIXES = frozenset({".jsonl", ".csv"})

_PHOTO, _PROMPT = ("dir", "image", "path"), ("text", "prompt", "caption")


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
    """What `sources` ask for, in their order: lists (.jsonl, .csv), prompt folders, photos, folders, patterns.

    A folder with photos and one .txt file is a prompt folder, unless not `prompt_folders`. `allow_outside`: lists may
    name photos that are not in the list's own folder or below it. Raises MediaError, in one line, for what cannot be
    read, and for two entries of lists whose videos would have one name.
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
    """The entries of a list: JSON lines such as {"dir": "shots/1.png", "text": "fireworks"}, or a CSV with a header.

    The photo is `dir`, `image` or `path`; its prompt `text`, `prompt` or `caption`; `mask`, `id` (the video's name) and
    `seed` (a whole number of 0 or more) may be there too, and whatever else. Photos are sought from the list's folder,
    then from the current one, as the paper's lists are written, and have to be in the list's folder or below it, links
    followed.

    Raises MediaError, in one line, that names the line of the list.
    """
    path = Path(path)
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path)
    entries = [_entry(path, origin, row, allow_outside=allow_outside) for origin, row in rows]
    if not entries:
        raise MediaError(f"{path}: no photos in it; give a line for each")
    return entries


def read_prompt_folder(folder: str | Path) -> list[Entry]:
    """The photos of a folder by name, with the lines of its one .txt file, blank ones left out, in order.

    Raises MediaError if there is not one such file, or not as many prompts as photos.
    """
    folder = Path(folder)
    texts, photos = _text_files(folder), _photos(folder)
    if len(texts) != 1:
        raise MediaError(
            f"{folder}: {len(texts)} .txt files in it; a prompt folder has one, with a line for each photo"
        )
    prompts = [line.strip() for line in _lines(texts[0]) if line.strip()]
    if len(prompts) != len(photos):
        raise MediaError(
            f"{texts[0]}: {len(prompts)} prompts for the {len(photos)} photos beside it; give one for each, in the"
            f" order of their names, or name the photos without it, such as {folder}/*.png"
        )
    return [Entry(photo, prompt, origin=str(folder)) for photo, prompt in zip(photos, prompts, strict=True)]


def _entry(path: Path, origin: str, row: Mapping[str, Any], *, allow_outside: bool) -> Entry:
    def text(names: Iterable[str]) -> str | None:
        for name in names:
            if (value := row.get(name)) not in (None, ""):
                if not isinstance(value, str) or "\0" in value:
                    raise MediaError(f"{origin}: {name} is no text but {value!r}")
                return value
        return None

    photo, name = text(_PHOTO), text(["id"])
    if photo is None:
        raise MediaError(f"{origin}: no photo; give it as {', '.join(_PHOTO[:-1])} or {_PHOTO[-1]}")
    if name is not None and (name in (".", "..") or Path(name).name != name or "\\" in name):
        raise MediaError(f"{origin}: id {name!r} is no name for a file")
    seed = row.get("seed")
    if seed in (None, ""):
        seed = None
    elif isinstance(seed, bool) or not re.fullmatch(r"[0-9]{1,18}", str(seed)):
        raise MediaError(f"{origin}: seed is no whole number of 0 or more but {seed!r}")
    mask = text(["mask"])
    return Entry(
        _inside(path, origin, photo, allow_outside=allow_outside),
        text(_PROMPT),
        None if mask is None else _inside(path, origin, mask, allow_outside=allow_outside),
        name,
        origin,
        None if seed is None else int(seed),
    )


def _inside(path: Path, origin: str, name: str, *, allow_outside: bool) -> Path:
    """A file that a list names; MediaError if it is not there, or outside the list's folder."""
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


def _json_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(_lines(path), start=1):
        origin = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise MediaError(f'{origin}: no JSON object; give such as {{"dir": "1.png", "text": "fireworks"}}')
        yield origin, row


def _csv_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    reader = csv.reader(_lines(path), strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        if not set(header) & set(_PHOTO):
            raise MediaError(f"{path}: no column {', '.join(_PHOTO[:-1])} or {_PHOTO[-1]} in its first line")
        for values in reader:
            origin = f"{path}, line {reader.line_num}"
            if not any(values):
                continue
            if len(values) != len(header):
                raise MediaError(f"{origin}: {len(values)} values for {len(header)} columns; quote texts with commas")
            yield origin, dict(zip_longest(header, (value.strip() for value in values)))
    except csv.Error as error:
        raise MediaError(f"{path}, line {reader.line_num}: {error}") from error


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise MediaError(f"{path}: not a text file in UTF-8") from None


def _text_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.txt") if file.is_file() and not file.name.startswith("."))


def _photos(folder: Path) -> list[Path]:
    files = sorted(folder.iterdir())
    return [f for f in files if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".") and f.is_file()]


def _apart(entries: Iterable[Entry]) -> Iterator[Entry]:
    """The same; MediaError for two of lists whose videos would have one name."""
    taken: dict[str, Entry] = {}
    for entry in entries:
        name = entry.name or entry.photo.stem
        if (other := taken.setdefault(name, entry)) is not entry and (entry.origin or other.origin):
            raise MediaError(
                f"{entry.origin or entry.photo}: its video would have the name of that of"
                f" {other.origin or other.photo}, {name}; give each an id of its own"
            )
        yield entry
