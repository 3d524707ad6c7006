"""Whose is what: files go to the browser that brought or made them, and to no other."""

import hashlib
import json
import os
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from threading import Lock
from typing import Any

__all__ = ["Gate", "Visitors"]

_COOKIE = "unleak_visitor"
_TOKEN = re.compile(r"[\w-]{32}", re.ASCII)
_FILE = re.compile(r"(?:/gradio_api)?/file[=/](.*)", re.DOTALL)
_SESSION = re.compile(r"(?:/gradio_api)?/heartbeat/([^/]+)/?")
_MOST = 10_000  # uploads and sessions that are remembered

Message = MutableMapping[str, Any]


class Visitors:
    """Who brought which upload and opened which session, for the files below `folder`.

    A visitor is the secret in a cookie. Results lie in folders of the visitor's own, whose names do not tell the
    secret. Gradio puts an upload where its content says, so of one that several brought each is an owner.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = os.path.realpath(folder)
        self._owners: dict[str, set[str]] = {}
        self._sessions: dict[str, str] = {}
        self._lock = Lock()

    def room(self, visitor: str) -> Path:
        """A new folder for results of this visitor."""
        room = Path(self._folder) / _name(visitor) / secrets.token_urlsafe(24)
        room.mkdir(mode=0o700, parents=True)
        return room

    def brought(self, visitor: str, files: Iterable[str]) -> None:
        """Remember uploads."""
        with self._lock:
            for file in files:
                _remember(self._owners, os.path.realpath(file), set()).add(visitor)

    def owns(self, visitor: str, file: str) -> bool:
        """Whether a file may be read for this visitor."""
        place = os.path.realpath(file)
        if os.path.commonpath([place, self._folder]) != self._folder:
            return False
        own = os.path.join(self._folder, _name(visitor)) + os.sep
        return place.startswith(own) or visitor in self._owners.get(place, ())

    def hears(self, visitor: str, session: str) -> bool:
        """Whether a session's news are this visitor's: who asks first for them has opened it."""
        with self._lock:
            return _remember(self._sessions, session, visitor) == visitor


class Gate:
    """ASGI: everyone has a cookie, and gets only what is theirs; for `middleware` of the application."""

    def __init__(self, app: Callable[..., Awaitable[None]], visitors: Visitors) -> None:
        self._app, self._visitors = app, visitors

    async def __call__(self, scope: Message, receive: Any, send: Callable[[Message], Awaitable[None]]) -> None:
        """Answer, or let the application answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        known = visitor_of(_cookies(scope))
        visitor = known or secrets.token_urlsafe(24)
        if known is None:  # the application is to see what the browser is about to be told
            others = [value for name, value in scope["headers"] if name == b"cookie"]
            cookie = b"; ".join([*others, f"{_COOKIE}={visitor}".encode()])
            headers = [(name, value) for name, value in scope["headers"] if name != b"cookie"]
            scope = {**scope, "headers": [*headers, (b"cookie", cookie)]}
        if not self._may(visitor, scope):
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"not found"})
            return
        uploads = scope["method"] == "POST" and scope["path"].rstrip("/").endswith("/upload")
        body, status = bytearray(), 0

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if known is None:
                    secure = "; Secure" if scope.get("scheme") == "https" else ""
                    value = f"{_COOKIE}={visitor}; Path=/; HttpOnly; SameSite=Lax{secure}"
                    message = {**message, "headers": [*message["headers"], (b"set-cookie", value.encode())]}
            elif uploads and status == 200:
                body.extend(message.get("body", b""))
                if not message.get("more_body"):  # before the browser knows where it is
                    self._visitors.brought(visitor, json.loads(bytes(body)))
            await send(message)

        await self._app(scope, receive, told)

    def _may(self, visitor: str, scope: Message) -> bool:
        path = scope["path"].removeprefix(scope.get("root_path") or "")
        if file := _FILE.fullmatch(path):
            return "\0" not in file[1] and self._visitors.owns(visitor, file[1])
        session = _SESSION.fullmatch(path) or re.search(rb"(?:^|&)session_hash=([^&]+)", scope["query_string"])
        if session is not None:
            name = session[1] if isinstance(session[1], str) else session[1].decode("latin-1")
            return self._visitors.hears(visitor, name)
        return True


def visitor_of(cookies: MutableMapping[str, str]) -> str | None:
    """The visitor that the cookies of a request name; None if they name none."""
    token = cookies.get(_COOKIE, "")
    return token if _TOKEN.fullmatch(token) else None


def _cookies(scope: Message) -> dict[str, str]:
    given = b"; ".join(value for name, value in scope["headers"] if name == b"cookie")
    try:
        found = SimpleCookie(given.decode("latin-1"))
    except CookieError:
        return {}
    return {name: morsel.value for name, morsel in found.items()}


def _name(visitor: str) -> str:
    return hashlib.sha256(visitor.encode()).hexdigest()[:40]


def _remember(known: dict[str, Any], key: str, value: Any) -> Any:
    """`known[key]`, set to `value` if it is new; of too many the oldest is forgotten."""
    if key not in known:
        while len(known) >= _MOST:
            del known[next(iter(known))]
        known[key] = value
    return known[key]
