"""A model's files on this machine: chosen, downloaded, compared with their hashes, unpacked, converted."""

import re
import shutil
import sys
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from unleak.zoo.cache import cache_folder, check_space, made_once, read_note, write_note
from unleak.zoo.conversion import converted, converted_folder
from unleak.zoo.download import check_hash, digest_of, download, git_digest_of, network_errors, patiently
from unleak.zoo.models import MODELS, base_of
from unleak.zoo.safety import check_index, safe_members
from unleak.zoo.source import Source, why_not_to_be_had
from unleak.zoo.spec import ModelSpec

__all__ = ["Pipeline", "fetch", "fetch_file", "here", "in_use", "pipeline_source"]

# What a pipeline is read from; never pickles, never code.
_READABLE = ("*.json", "*.txt", "*.model", "*.spm", "*.jinja", "*.safetensors")
_WEIGHTS = re.compile(r"(?:diffusion_pytorch_model|model)(?:\.(?P<variant>\w+))?(?:-\d+-of-\d+)?\.safetensors")
_SHARDS = re.compile(r"(?:diffusion_pytorch_model|model)\.safetensors\.index(?:\.(?P<variant>\w+))?\.json")
_PICKLES = ("*.ckpt", "*.pt", "*.pth", "*.bin")
_WORTH_CONTINUING = 50_000_000  # bytes, of a download whose process was killed


@dataclass(frozen=True)
class Pipeline:
    """Folders to load a model from: the pipeline's, and those of parts that come from elsewhere."""

    folder: Path
    parts: dict[str, Path] = field(default_factory=dict)
    variant: str | None = None
    """Of the weights in `folder`; None: those without a name."""


@dataclass(frozen=True)
class Listed:
    """A file as the Hub lists it; the hashes are the Hub's own."""

    path: str
    size: int
    sha256: str | None = None
    git: str | None = None


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
    """The folders of a model that was fetched; empty if it was not, or is gone."""
    if Source(spec.source).is_folder:
        return [Path(spec.source)]
    ready = read_note("ready", spec.name)
    folders = [Path(str(folder)) for folder in (ready.get("folder"), *ready.get("parts", {}).values()) if folder]
    return folders if all(folder.is_dir() for folder in folders) else []


def in_use() -> set[Path]:
    """The folders, in unleak's own cache, that fetched models are loaded from."""
    folders = [folder for spec in MODELS.values() for folder in here(spec)]
    return {place for folder in folders for place in (folder, folder.parent)}


def pipeline_source(spec: ModelSpec) -> Source:
    """Where the configurations of the pipeline are to be read; ValueError for one that is yet to be converted."""
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
    """One file, `owner/name:path`, of a Hub repository; compared with the Hub's own hash."""
    repository, _, path = location.partition(":")
    commit, files, note = _listing(repository, revision, update=False)
    found = [file for file in files if file.path == path]
    if not found:
        raise ValueError(f"{repository}: it has no {path}, but {', '.join(file.path for file in files)[:200]}")
    return _download(repository, commit, found, note, f"{repository}:{path}")[0]


def _own(
    spec: ModelSpec, wanted: Callable[[str], bool], variant: str | None, update: bool, say: Callable[[str], None]
) -> Path:
    """The folder of what `spec` itself brings, converted where need be."""
    if Source(spec.source).is_folder:
        return Path(spec.source)
    if spec.licence and not read_note("licence", spec.name):
        say(f"{spec.name}: licence: {spec.licence}; {spec.terms}")
        write_note({"told": spec.licence}, "licence", spec.name)
    if spec.source.startswith("https://") or spec.source.startswith("http://"):
        known = read_note("archive", spec.name).get("sha256")
        if spec.convert is not None and known and (made := converted_folder(spec.convert, known)).is_dir():
            return made
        folder, digest = _unpacked(spec, say)
        return folder if spec.convert is None else converted(spec.convert, folder, digest)
    commit, files, note = _listing(spec.source, spec.revision, update=update)
    _compare_known(spec, files)
    if spec.convert is not None:
        (file,) = found = _checkpoint(spec, files, say)
        (path,) = _download(spec.source, commit, found, note, f"model {spec.name}")
        return converted(spec.convert, path, file.sha256 or digest_of(path))
    if spec.part is not None:
        chosen = _readable(files, "", variant)
        return _download(spec.source, commit, chosen, note, f"model {spec.name}")[0].parent
    (index,) = _download(spec.source, commit, [_the(files, "model_index.json", spec)], note, f"model {spec.name}")
    values = _index(index.parent, spec)
    check_index(values, f"model {spec.name}")
    chosen = [
        file
        for part in _parts(values)
        if wanted(part) and part not in spec.without
        for file in _readable(files, f"{part}/", variant)
    ]
    _download(spec.source, commit, chosen, note, f"model {spec.name}")
    return index.parent


def _readable(files: Sequence[Listed], below: str, variant: str | None) -> list[Listed]:
    """What is to be read of one part: configurations, and weights of the variant, or else those without a name."""
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
    """The one checkpoint file; of a name that nobody has verified, the only one there is."""
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


# The Hub


def _listing(repository: str, revision: str | None, *, update: bool) -> tuple[str, list[Listed], dict[str, Any]]:
    """The commit, its files, and the note kept of them; without network, what is known of before."""
    import huggingface_hub

    name = ("hub", repository, revision or "newest")
    note = read_note(*name)
    if not note or (update and revision is None):
        try:
            found = patiently(
                lambda: huggingface_hub.HfApi().model_info(repository, revision=revision, files_metadata=True)
            )
        except network_errors(ValueError) as error:
            commit, folder = _in_hub_cache(repository, revision)
            if not note and folder is None:
                raise ValueError(f"model {repository}: {why_not_to_be_had(error, repository)}") from error
            if not note:
                assert folder is not None
                kept = [path for path in folder.rglob("*") if path.is_file()]
                return commit, [Listed(path.relative_to(folder).as_posix(), path.stat().st_size) for path in kept], {}
        else:
            listed = [
                Listed(one.rfilename, one.size or 0, one.lfs.sha256 if one.lfs else None, one.blob_id)
                for one in found.siblings or ()
            ]
            if any(".." in file.path.split("/") or file.path.startswith("/") for file in listed):
                raise ValueError(f"model {repository}: it lists files outside of its own folder: refused")
            before = note.get("checked", {}) if note.get("commit") == found.sha else {}
            note = {"name": name, "commit": found.sha, "files": [asdict(file) for file in listed], "checked": before}
            write_note(note, *name)
    return note["commit"], [Listed(**file) for file in note["files"]], note


def _in_hub_cache(repository: str, revision: str | None) -> tuple[str, Path | None]:
    """The commit and the folder of what another program downloaded of a repository."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")
    reference = folder / "refs" / (revision or "main")
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision or ""
    there = folder / "snapshots" / commit
    return commit, there if commit and there.is_dir() else None


def _download(repository: str, commit: str, files: Sequence[Listed], note: dict[str, Any], what: str) -> list[Path]:
    """The files' paths in the Hub's cache; those that were never checked are, after those missing were downloaded."""
    import huggingface_hub
    from huggingface_hub import constants

    def cached(file: Listed) -> Path | None:
        found = huggingface_hub.try_to_load_from_cache(repository, file.path, revision=commit)
        path = Path(found) if isinstance(found, str) else None
        return path if path is not None and path.is_file() and path.stat().st_size == file.size else None

    missing = [file for file in files if cached(file) is None]
    check_space(Path(constants.HF_HUB_CACHE), sum(file.size for file in missing), what)
    paths = []
    for file in files:
        path = cached(file)
        try:
            path = path or _from_hub(repository, commit, file)
        except network_errors(ValueError) as error:
            if type(error) is ValueError:
                raise
            raise ValueError(f"{what}: {file.path}: {why_not_to_be_had(error, repository)}") from error
        if note and note["checked"].get(file.path) != file.size:
            _check(path, file, what)
            note["checked"][file.path] = file.size
            write_note(note, *note["name"])
        paths.append(path)
    return paths


def _check(path: Path, file: Listed, what: str) -> None:
    """ValueError, and the file is gone, if it is not what the Hub's own hash says."""
    blob = path.resolve()
    try:
        if file.sha256 is not None:
            check_hash(blob, file.sha256, f"{what}: {file.path}")
        elif file.git is not None and (found := git_digest_of(blob)) != file.git:
            blob.unlink()
            raise ValueError(f"{what}: {file.path}: its hash is {found}, not {file.git}: damaged on the way; try again")
    finally:
        if not blob.exists():
            path.unlink(missing_ok=True)


def _from_hub(repository: str, commit: str, file: Listed) -> Path:
    """Download one file into the Hub's cache; a large one so that a later run can continue it."""
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.file_download import get_hf_file_metadata, repo_folder_name
    from huggingface_hub.utils import build_hf_headers

    if file.sha256 is not None and file.size >= _WORTH_CONTINUING:
        url = huggingface_hub.hf_hub_url(repository, file.path, revision=commit)
        about = patiently(lambda: get_hf_file_metadata(url, token=None, headers=build_hf_headers()))
        if about.xet_file_data is None and about.etag == file.sha256:
            same = about.location == url  # elsewhere the address itself is signed, and the token has no business
            made, _ = download(
                about.location if not same else url,
                size=file.size,
                sha256=file.sha256,
                name=file.path,
                headers=build_hf_headers() if same else build_hf_headers(token=False),
            )
            folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model") / "blobs"
            folder.mkdir(parents=True, exist_ok=True)
            shutil.move(made, folder / file.sha256)  # where the Hub's client finds it, and asks for no more
    return Path(patiently(lambda: huggingface_hub.hf_hub_download(repository, file.path, revision=commit)))


# Archives


def _unpacked(spec: ModelSpec, say: Callable[[str], None]) -> tuple[Path, str]:
    """The folder in a tar archive from the web, and the archive's SHA-256."""
    from huggingface_hub.utils import get_session

    known = spec.files[0] if spec.files else None
    note = read_note("archive", spec.name)
    digest = note.get("sha256")
    if digest is None or (known and known.sha256 not in (None, digest)) or not _place(spec, digest).is_dir():
        try:
            answer = patiently(lambda: get_session().head(spec.source, follow_redirects=True))
            size = int(answer.headers.get("Content-Length", 0)) or (known.size if known else None)
            check_space(cache_folder(), 2 * (size or 0), f"model {spec.name}")
            archive, digest = download(
                spec.source, size=size, sha256=known.sha256 if known else None, name=spec.source.rpartition("/")[2]
            )
        except network_errors() as error:
            raise ValueError(f"model {spec.name}: {why_not_to_be_had(error)}") from error
        if known is None or known.sha256 is None:
            say(f"{spec.name}: nobody has verified this archive; its SHA-256 is {digest}")
        made_once(_place(spec, digest), lambda folder: _unpack(archive, folder, spec))
        write_note({"sha256": digest}, "archive", spec.name)
        archive.unlink(missing_ok=True)
    folder = _place(spec, digest)
    inside = [
        path.parent for path in (folder / "model_index.json", *folder.glob("*/model_index.json")) if path.is_file()
    ]
    if not inside:
        raise ValueError(f"model {spec.name}: no pipeline in its archive")
    return inside[0], digest


def _place(spec: ModelSpec, digest: str) -> Path:
    return cache_folder() / "unpacked" / f"{spec.name}-{digest[:32]}"


def _unpack(archive: Path, folder: Path, spec: ModelSpec) -> None:
    try:
        with tarfile.open(archive) as packed:
            for member, path in safe_members(packed):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                source = packed.extractfile(member)
                assert source is not None
                with source, (folder / path).open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
    except (tarfile.TarError, EOFError) as error:
        archive.unlink(missing_ok=True)
        raise ValueError(
            f"model {spec.name}: its archive is damaged ({error}); it was removed, so try again"
        ) from error
    except ValueError as error:
        archive.unlink(missing_ok=True)
        raise ValueError(f"model {spec.name}: {error}") from error
