"""Download files of a Hub repository at one commit, each compared with the hash that the Hub lists for it."""

import glob
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unleak.data.reading import Record, parse_values
from unleak.zoo.cache import check_space, read_note, write_note
from unleak.zoo.download import download, network_errors, patiently
from unleak.zoo.source import why_not_to_be_had

__all__ = ["Listed", "Repository"]

_WORTH_CONTINUING = 50_000_000  # bytes, of a download whose process was killed; worth a line, too


@dataclass(frozen=True)
class Listed:
    """A file as the Hub lists it."""

    path: str
    size: int
    sha256: str | None = None
    """Of a large file."""


class _File(Record):
    path: str
    size: int
    sha256: str | None


class _Note(Record):
    key: list[str]
    commit: str
    files: list[_File]
    verified: list[str]


@dataclass(frozen=True)
class Repository:
    """The files of a repository at one commit, and a note, kept on this machine, of those that were verified here."""

    name: str
    commit: str
    files: tuple[Listed, ...]
    note: dict[str, Any]

    @classmethod
    def find(cls, name: str, revision: str | None, *, update: bool = False) -> "Repository":
        """List a repository at a revision (None: the newest, which is looked up once, or again with `update`).

        Without network, what is known from before is used. Raises ValueError, in one line, where that is nothing.
        """
        key = ("hub", name, revision or "newest")
        note = _checked(read_note(*key))
        if not note or (update and revision is None):
            import huggingface_hub

            try:
                found = patiently(
                    lambda: huggingface_hub.HfApi().model_info(name, revision=revision, files_metadata=True)
                )
            except network_errors(ValueError) as error:
                if not note:
                    return cls._cached(name, revision, error)
            else:
                files = [
                    Listed(one.rfilename, one.size or 0, one.lfs.sha256 if one.lfs else None)
                    for one in found.siblings or ()
                ]
                if any(".." in file.path.split("/") or file.path.startswith("/") for file in files):
                    raise ValueError(f"model {name}: it lists files outside of its own folder: refused")
                verified = note.get("verified", []) if note.get("commit") == found.sha else []
                note = {"key": key, "commit": found.sha, "files": [*map(asdict, files)], "verified": verified}
                write_note(note, *key)
        return cls(name, note["commit"], tuple(Listed(**file) for file in note["files"]), note)

    @classmethod
    def _cached(cls, name: str, revision: str | None, reason: Exception) -> "Repository":
        """Use what another program has downloaded; the ValueError of `reason` if there is nothing."""
        import huggingface_hub

        try:
            folder = Path(huggingface_hub.snapshot_download(name, revision=revision, local_files_only=True))
        except network_errors(ValueError):
            raise ValueError(f"model {name}: {why_not_to_be_had(reason, name)}") from reason
        kept = [path for path in folder.rglob("*") if path.is_file()]
        files = tuple(Listed(path.relative_to(folder).as_posix(), path.stat().st_size) for path in kept)
        return cls(name, folder.name, files, {})

    def download(self, files: Sequence[Listed], what: str, say: Callable[[str], None] = lambda _: None) -> list[Path]:
        """Download what is missing of `files` and verify what never was; return their paths in the Hub's cache.

        `say` is given one line that states the size of a download that takes a while. Raises ValueError, in one line
        that begins with `what`, if they do not fit the disk, cannot be had, or have another hash than the Hub lists;
        such a file is removed.
        """
        import huggingface_hub
        from huggingface_hub import constants

        missing = [file for file in files if self._here(file) is None]
        size = sum(file.size for file in missing)
        check_space(Path(constants.HF_HUB_CACHE), size, what)
        if size >= _WORTH_CONTINUING:
            say(f"{what}: downloading {size / 1e9:.2g} GB")
        try:
            if missing:
                for file in missing:
                    self._continue(file)
                patiently(
                    lambda: huggingface_hub.snapshot_download(
                        self.name, revision=self.commit, allow_patterns=[glob.escape(file.path) for file in missing]
                    )
                )
            self._verify([file.path for file in files], what)
        except network_errors() as error:
            left = [file.path for file in files if self._here(file) is None] or ["its hashes"]
            raise ValueError(f"{what}: {', '.join(left)[:200]}: {why_not_to_be_had(error, self.name)}") from error
        paths = [self._here(file) for file in files]
        for file, path in zip(files, paths, strict=True):
            if path is None:
                raise ValueError(f"{what}: the Hub has no {file.path} of the size that it lists; try again later")
        return [path for path in paths if path is not None]

    def _here(self, file: Listed) -> Path | None:
        import huggingface_hub

        found = huggingface_hub.try_to_load_from_cache(self.name, file.path, revision=self.commit)
        path = Path(found) if isinstance(found, str) else None
        return path if path is not None and path.is_file() and path.stat().st_size == file.size else None

    def _verify(self, names: Sequence[str], what: str) -> None:
        if not self.note or set(names) <= set(self.note["verified"]):
            return
        import huggingface_hub

        found = patiently(lambda: huggingface_hub.HfApi().verify_repo_checksums(self.name, revision=self.commit))
        for wrong in found.mismatches:
            if wrong["path"] in names:
                path = Path(found.verified_path) / wrong["path"]
                path.resolve().unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                raise ValueError(
                    f"{what}: {wrong['path']}: its hash is {wrong['actual']}, not {wrong['expected']}: damaged on the "
                    "way, or exchanged; it was removed: try again"
                )
        self.note["verified"] = sorted({*self.note["verified"], *names} - set(found.missing_paths))
        write_note(self.note, *self.note["key"])

    def _continue(self, file: Listed) -> None:
        """Put a large file where the Hub's client finds it, continued if a killed process has left a part of it.

        The client itself begins again. It downloads what is not a plain file of a known hash.
        """
        if file.sha256 is None or file.size < _WORTH_CONTINUING:
            return
        import huggingface_hub
        from huggingface_hub import constants
        from huggingface_hub.file_download import get_hf_file_metadata, repo_folder_name
        from huggingface_hub.utils import build_hf_headers

        url = huggingface_hub.hf_hub_url(self.name, file.path, revision=self.commit)
        about = patiently(lambda: get_hf_file_metadata(url, token=None, headers=build_hf_headers()))
        if about.xet_file_data is not None or about.etag != file.sha256:
            return
        same = about.location == url  # elsewhere the address itself is signed, and the token has no business
        made, _ = download(
            about.location,
            size=file.size,
            sha256=file.sha256,
            name=file.path,
            headers=build_hf_headers() if same else build_hf_headers(token=False),
        )
        blobs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=self.name, repo_type="model") / "blobs"
        blobs.mkdir(parents=True, exist_ok=True)
        shutil.move(made, blobs / file.sha256)


def _checked(note: dict[str, Any]) -> dict[str, Any]:
    """Return a note that can be used; empty for one that another version wrote, which is then made again."""
    try:
        return parse_values(note, _Note, "note").model_dump()
    except ValueError:
        return {}
