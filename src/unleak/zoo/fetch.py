"""Bring a model's files onto this machine: choose, download, compare with their hashes, unpack and convert them."""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from unleak.families.registry import MODELS, base_of
from unleak.families.spec import ModelSpec
from unleak.zoo.archive import known_digest, unpacked
from unleak.zoo.cache import read_note, write_note
from unleak.zoo.conversion import converted, converted_folder
from unleak.zoo.download import digest_of
from unleak.zoo.repository import Listed, Repository
from unleak.zoo.safety import check_index
from unleak.zoo.source import Source

__all__ = ["Pipeline", "fetch", "fetch_file", "here", "in_use", "pipeline_source"]

# What a pipeline is read from; never pickles, never code.
_READABLE = ("*.json", "*.txt", "*.model", "*.spm", "*.jinja", "*.safetensors")
_WEIGHTS = re.compile(r"(?:diffusion_pytorch_model|model)(?:\.(?P<variant>\w+))?(?:-\d+-of-\d+)?\.safetensors")
_SHARDS = re.compile(r"(?:diffusion_pytorch_model|model)\.safetensors\.index(?:\.(?P<variant>\w+))?\.json")
_PICKLES = ("*.ckpt", "*.pt", "*.pth", "*.bin")


@dataclass(frozen=True)
class Pipeline:
    """Folders to load a model from: the pipeline's, and those of parts that come from elsewhere."""

    folder: Path
    parts: dict[str, Path] = field(default_factory=dict)
    variant: str | None = None
    """Of the weights in `folder`; None: those without a name."""


def fetch(
    spec: ModelSpec,
    *,
    wanted: Callable[[str], bool] = bool,
    variant: str | None = None,
    update: bool = False,
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
) -> Pipeline:
    """All that loading `spec` needs, on this machine.

    What is here is used without a word to the network; with `update` the Hub is asked for a newer version of a model
    that is not pinned. `wanted(part)` says which parts of the pipeline are. `say` is told the licence, once for each
    model. Raises ValueError, in one line, for what cannot be had, would not fit the disk, has another hash than it
    should, or names code that is not known.
    """
    if spec.part is not None:
        own = _own(spec, wanted, None, update, say)
        others = fetch(
            base_of(spec),
            wanted=lambda part: part != spec.part and wanted(part),
            variant=variant,
            update=update,
            say=say,
        )
        below = own / spec.part
        made = replace(others, parts={**others.parts, spec.part: below if below.is_dir() else own})
    else:
        folder = _own(spec, wanted, variant, update, say)
        check_index(_index(folder, spec), f"model {spec.name}")
        named = variant is not None and any(folder.glob(f"*/*.{variant}*.safetensors"))
        made = Pipeline(folder, variant=variant if named else None)
    if not Source(spec.source).is_folder and all(map(wanted, _parts(_index(made.folder, spec)))):
        parts = {part: str(folder) for part, folder in made.parts.items()}
        write_note({"folder": str(made.folder), "parts": parts}, "ready", spec.name)
    return made


def here(spec: ModelSpec) -> list[Path]:
    """Return the folders of a model that was fetched; empty if it was not, or is gone."""
    if Source(spec.source).is_folder:
        return [Path(spec.source)]
    ready = read_note("ready", spec.name)
    folders = [Path(str(folder)) for folder in (ready.get("folder"), *ready.get("parts", {}).values()) if folder]
    return folders if all(folder.is_dir() for folder in folders) else []


def in_use() -> set[Path]:
    """Return the folders, in unleak's own cache, that fetched models are loaded from."""
    folders = [folder for spec in MODELS.values() for folder in here(spec)]
    return {place for folder in folders for place in (folder, folder.parent)}


def pipeline_source(spec: ModelSpec) -> Source:
    """Return where to read the pipeline's configurations. Raises ValueError for a model that is yet to be converted."""
    if spec.part is not None:
        return pipeline_source(base_of(spec))
    if spec.convert is None:
        return Source(spec.source, spec.revision)
    folders = here(spec)
    if not folders:
        raise ValueError(
            f"model {spec.name}: its checkpoint is converted on first use; run `unleak models fetch {spec.name}` first"
        )
    return Source(str(folders[0]))


def fetch_file(location: str, *, revision: str | None = None) -> Path:
    """Download one file, `owner/name:path`, of a Hub repository, and compare it with the Hub's own hash."""
    name, _, path = location.partition(":")
    repository = Repository.find(name, revision)
    found = [file for file in repository.files if file.path == path]
    if not found:
        raise ValueError(f"{name}: it has no {path}, but {', '.join(file.path for file in repository.files)[:200]}")
    return repository.download(found, location)[0]


def _own(
    spec: ModelSpec, wanted: Callable[[str], bool], variant: str | None, update: bool, say: Callable[[str], None]
) -> Path:
    """Return the folder of what `spec` itself brings, converted where need be."""
    if Source(spec.source).is_folder:
        return Path(spec.source)
    if spec.licence and not read_note("licence", spec.name):
        say(f"{spec.name}: licence: {spec.licence}; {spec.terms}")
        write_note({"told": spec.licence}, "licence", spec.name)
    if spec.source.startswith("https://") or spec.source.startswith("http://"):
        known = known_digest(spec)
        if spec.convert is not None and known and (made := converted_folder(spec.convert, known)).is_dir():
            return made
        folder, digest = unpacked(spec, say)
        return folder if spec.convert is None else converted(spec.convert, folder, digest)
    repository = Repository.find(spec.source, spec.revision, update=update)
    files, what = repository.files, f"model {spec.name}"
    _compare_known(spec, files)
    if spec.convert is not None:
        (file,) = found = _checkpoint(spec, files, say)
        (path,) = repository.download(found, what, say)
        return converted(spec.convert, path, file.sha256 or digest_of(path))
    if spec.part is not None:
        return repository.download(_readable(files, "", variant), what, say)[0].parent
    (index,) = repository.download([_the(files, "model_index.json", spec)], what)
    values = _index(index.parent, spec)
    check_index(values, what)
    parts = [part for part in _parts(values) if wanted(part) and part not in spec.without]
    repository.download([file for part in parts for file in _readable(files, f"{part}/", variant)], what, say)
    return index.parent


def _readable(files: Sequence[Listed], below: str, variant: str | None) -> list[Listed]:
    """List what to read of one part: configurations, and weights of the variant, or else those without a name."""
    inside = [file for file in files if file.path.startswith(below) and "/" not in file.path[len(below) :]]
    kept, weights = [], dict[str | None, list[Listed]]()
    for file in inside:
        name = file.path[len(below) :]
        named = _WEIGHTS.fullmatch(name) or _SHARDS.fullmatch(name)
        if named:
            weights.setdefault(named["variant"], []).append(file)
        elif any(fnmatch(name, pattern) for pattern in _READABLE):
            kept.append(file)
    if not weights and any(fnmatch(file.path, pattern) for file in inside for pattern in _PICKLES):
        raise ValueError(
            f"{below or 'it'} has its weights as pickles only, which may hold code; ask its author for safetensors"
        )
    return kept + weights.get(variant, weights.get(None, next(iter(weights.values()), [])))


def _the(files: Sequence[Listed], path: str, spec: ModelSpec) -> Listed:
    for file in files:
        if file.path == path:
            return file
    raise ValueError(f"model {spec.source}: no pipeline there; it needs the {path} that diffusers saves")


def _checkpoint(spec: ModelSpec, files: Sequence[Listed], say: Callable[[str], None]) -> list[Listed]:
    """Return the one checkpoint file; if nobody has verified its name, the only one there is."""
    names = [known.path for known in spec.files]
    found = [file for file in files if file.path in names]
    if not found and "file name" in spec.unverified:
        found = [file for file in files if file.path.endswith((".ckpt", ".safetensors"))]
        if len(found) == 1:
            say(f"{spec.name}: its checkpoint is {found[0].path}, not {names[0]} as was thought")
    if len(found) != 1:
        has = ", ".join(file.path for file in files)[:200] or "nothing"
        raise ValueError(f"model {spec.name}: {spec.source} has no {' or '.join(names)}, but {has}")
    return found


def _compare_known(spec: ModelSpec, files: Sequence[Listed]) -> None:
    """ValueError with both values where the Hub lists another hash than is known here."""
    known = {file.path: file.sha256 for file in spec.files if file.sha256}
    for file in files:
        if file.sha256 and file.sha256 != known.get(file.path, file.sha256):
            raise ValueError(
                f"model {spec.name}: {file.path} should have the SHA-256 {known[file.path]}, and the Hub now lists "
                f"{file.sha256}: it was exchanged, so it is refused"
            )


def _index(folder: Path, spec: ModelSpec) -> dict[str, Any]:
    values = Source(str(folder)).read("model_index.json")
    if not values:
        raise ValueError(
            f"model {spec.name}: no pipeline in {folder}; it needs the model_index.json that diffusers saves"
        )
    return values


def _parts(index: dict[str, Any]) -> list[str]:
    return [part for part, value in index.items() if isinstance(value, list) and any(value)]
