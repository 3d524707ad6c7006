"""Download one file: go on where it stopped, ask again if a server is busy, and compare its hash."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from unleak.zoo.cache import cache_folder, lock_of

__all__ = ["check_hash", "digest_of", "download", "network_errors", "patiently", "status_of"]

T = TypeVar("T")
_BUSY = (408, 429, 500, 502, 503, 504)
_WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds, where the server does not say
_LONGEST_WAIT = 60.0


def network_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Return what the Hub's client raises, its own errors and those of its HTTP library; and `others`."""
    from huggingface_hub import errors

    return (OSError, *errors.HfHubHTTPError.__bases__, *others)


def status_of(error: BaseException | None) -> int | None:
    """Return the HTTP status that an error, or its cause, came with."""
    while error is not None:
        response = getattr(error, "response", None)
        if response is not None:
            return int(response.status_code)
        error = error.__cause__
    return None


def patiently(call: Callable[[], T]) -> T:
    """Return what `call` returns; it is called up to six times if a server is busy, twice if none answers.

    Between tries it waits as long as the server asks, up to a minute, or else ever longer.
    """
    for tried, usual in enumerate(_WAITS):
        try:
            return call()
        except network_errors() as error:
            status = status_of(error)
            answered = status in _BUSY if status is not None else _broke_off(error) and tried < 1
            if not answered:
                raise
            time.sleep(min(_asked_wait(error, usual), _LONGEST_WAIT))
    return call()


def _broke_off(error: BaseException) -> bool:
    """Return whether the connection failed; errors that files or settings here cause do not count."""
    return not isinstance(error, OSError) or isinstance(error.__cause__, network_errors()[1:])


def _asked_wait(error: BaseException | None, usual: float) -> float:
    while error is not None:
        asked = getattr(getattr(error, "response", None), "headers", {}).get("Retry-After", "")
        if asked.isdecimal():
            return float(asked)
        error = error.__cause__
    return usual


def download(
    url: str, *, size: int | None, sha256: str | None, name: str, headers: dict[str, str] | None = None
) -> tuple[Path, str]:
    """Download to the cache's `partial` folder; return the file, which the caller moves, and its SHA-256.

    What an earlier run, broken off or killed, has left there is continued. `headers` go to this address alone. Raises
    ValueError, with both values, for other bytes than the hash says, which are removed.
    """
    from huggingface_hub.file_download import http_get

    folder = cache_folder() / "partial"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / (sha256 or hashlib.sha256(url.encode()).hexdigest())
    with FileLock(lock_of(target)):
        with target.open("ab") as file:
            patiently(
                lambda: http_get(
                    url,
                    file,
                    resume_size=file.tell(),
                    headers=dict(headers or {}),
                    expected_size=size,
                    displayed_filename=name,
                )
            )
        return target, check_hash(target, sha256, name)


def check_hash(path: Path, sha256: str | None, name: str) -> str:
    """Return the SHA-256 of a file; if it is not `sha256`, remove the file and raise ValueError with both values."""
    found = digest_of(path)
    if sha256 is not None and found != sha256:
        path.unlink()
        raise ValueError(
            f"{name}: its SHA-256 is {found}, not {sha256}: damaged on the way, or exchanged; it was removed: try again"
        )
    return found


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
