"""Keep apart whose is what: files go to the browser that brought or made them, and to no other."""

import hashlib
import os
import re
import secrets
from collections.abc import Iterable, MutableMapping
from pathlib import Path
from threading import Lock
from typing import Any

__all__ = ["COOKIE", "LeftError", "Visitors", "visitor_of"]

COOKIE = "unleak_visitor"
_TOKEN = re.compile(r"[\w-]{32}", re.ASCII)
_MOST = 10_000  # uploads and sessions that are remembered


class LeftError(Exception):
    """The visitor for whom something is being made has closed the page."""


class Visitors:
    """Who brought which upload and opened which session, for the files below `folder`.

    A visitor is the secret in a cookie. Results lie in folders of the visitor's own, whose names do not tell the
    secret. Gradio puts an upload where its content says, so of one that several brought each is an owner.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = os.path.realpath(folder)
        self._owners: dict[str, set[str]] = {}
        self._sessions: dict[str, str] = {}
        self._gone: dict[str, bool] = {}
        self._lock = Lock()

    def room(self, visitor: str) -> Path:
        """Make a new folder for results of this visitor."""
        room = Path(self._folder) / _name(visitor) / secrets.token_urlsafe(24)
        room.mkdir(mode=0o700, parents=True)
        return room

    def brought(self, visitor: str, files: Iterable[str]) -> None:
        """Remember uploads."""
        with self._lock:
            for file in files:
                _remember(self._owners, os.path.realpath(file), set()).add(visitor)

    def owns(self, visitor: str, file: str) -> bool:
        """Tell whether a file may be read for this visitor."""
        place = os.path.realpath(file)
        if os.path.commonpath([place, self._folder]) != self._folder:
            return False
        own = os.path.join(self._folder, _name(visitor)) + os.sep
        return place.startswith(own) or visitor in self._owners.get(place, ())

    def left(self, session: str) -> None:
        """Remember that the page of this session was closed."""
        with self._lock:
            _remember(self._gone, session, True)

    def check_here(self, session: str | None) -> None:
        """Raise LeftError if the page of this session was closed: what is being made for it is for nobody."""
        if session in self._gone:
            raise LeftError

    def hears(self, visitor: str, session: str) -> bool:
        """Tell whether a session is this visitor's: whoever asks for it first has opened it."""
        with self._lock:
            own: bool = _remember(self._sessions, session, visitor) == visitor
            if own:  # whoever asks is here
                self._gone.pop(session, None)
            return own


def visitor_of(cookies: MutableMapping[str, str]) -> str | None:
    """Return the visitor that the cookies of a request name; None if they name none."""
    token = cookies.get(COOKIE, "")
    return token if _TOKEN.fullmatch(token) else None


def _name(visitor: str) -> str:
    return hashlib.sha256(visitor.encode()).hexdigest()[:40]


def _remember(known: dict[str, Any], key: str, value: Any) -> Any:
    """Return `known[key]`, set to `value` if it is new; of too many the oldest is forgotten."""
    if key not in known:
        while len(known) >= _MOST:
            del known[next(iter(known))]
        known[key] = value
    return known[key]
