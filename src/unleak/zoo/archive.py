"""Download a tar archive of a model from the web and unpack it into unleak's cache, once."""

from collections.abc import Callable
from pathlib import Path

from unleak.families.spec import ModelSpec
from unleak.zoo.cache import cache_folder, check_space, made_once, read_note, write_note
from unleak.zoo.download import download, network_errors, patiently
from unleak.zoo.safety import unpack
from unleak.zoo.source import why_not_to_be_had

__all__ = ["known_digest", "unpacked"]


def known_digest(spec: ModelSpec) -> str | None:
    """Return the SHA-256 of the archive that was unpacked for a model; None if none was."""
    return read_note("archive", spec.name).get("sha256")


def unpacked(spec: ModelSpec, say: Callable[[str], None]) -> tuple[Path, str]:
    """Return the pipeline's folder in a model's archive, and the archive's SHA-256.

    Raises ValueError, in one line, for an archive that cannot be had, would not fit the disk, has another hash than it
    should, is damaged or would write outside its folder.
    """
    known = spec.files[0] if spec.files else None
    digest = known_digest(spec)
    if digest is None or (known and known.sha256 not in (None, digest)) or not _place(spec, digest).is_dir():
        digest = _download(spec, say)
    folder = _place(spec, digest)
    indexes = (folder / "model_index.json", *sorted(folder.glob("*/model_index.json")))
    inside = next((path.parent for path in indexes if path.is_file()), None)
    if inside is None:
        raise ValueError(f"model {spec.name}: no pipeline in its archive")
    return inside, digest


def _download(spec: ModelSpec, say: Callable[[str], None]) -> str:
    from huggingface_hub.utils import get_session

    known = spec.files[0] if spec.files else None
    try:
        answer = patiently(lambda: get_session().head(spec.source, follow_redirects=True))
        size = int(answer.headers.get("Content-Length", 0)) or (known.size if known else None)
        check_space(cache_folder(), 2 * (size or 0), f"model {spec.name}")
        name = spec.source.rpartition("/")[2]
        archive, digest = download(spec.source, size=size, sha256=known.sha256 if known else None, name=name)
    except network_errors() as error:
        raise ValueError(f"model {spec.name}: {why_not_to_be_had(error)}") from error
    if known is None or known.sha256 is None:
        say(f"{spec.name}: nobody has verified this archive; its SHA-256 is {digest}")
    try:
        made_once(_place(spec, digest), lambda folder: unpack(archive, folder))
    except ValueError as error:
        raise ValueError(f"model {spec.name}: {error}; it was removed, so try again") from error
    finally:
        archive.unlink(missing_ok=True)
    write_note({"sha256": digest}, "archive", spec.name)
    return digest


def _place(spec: ModelSpec, digest: str) -> Path:
    return cache_folder() / "unpacked" / f"{spec.name}-{digest[:32]}"
