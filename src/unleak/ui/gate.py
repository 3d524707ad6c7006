"""Let requests through to the page's server: only from the page itself, for what it needs, and for what is theirs."""

import ipaddress
import json
import re
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from unleak.data.reading import parse_json
from unleak.ui.visitors import COOKIE, Visitors, visitor_of

__all__ = ["Gate", "allowed_hosts"]

# What the page asks its server for, as paths below the root; Gradio answers many more.
_GET = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/pwa_icon(/\d+)?"
    r"|/(static|assets|svelte)/[^\0]*"
    r"|/gradio_api/(info/?|app_id/?|startup-events|theme\.css|login_check/?|heartbeat/[^/]+|queue/data"
    r"|upload_progress)",
)
_POST = re.compile(r"/gradio_api/(upload|queue/join|cancel|reset)/?")
_FILE = re.compile(r"(?:/gradio_api)?/file[=/](.*)", re.DOTALL)
_HEARTBEAT = re.compile(r"/gradio_api/heartbeat/([^/]+)")
_MOST_BODY = 2**20  # bytes of a request that is no upload

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]


def allowed_hosts(host: str, others: Iterable[str] = ()) -> frozenset[str]:
    """Return the names by which a server that listens on `host` may be asked, beside addresses in numbers.

    A page of elsewhere can make its own name mean this machine (DNS rebinding), but then the browser still says that
    name. `others` are names that somebody has given this machine, such as that of a proxy.
    """
    own = () if host in ("127.0.0.1", "localhost", "::1") else (socket.gethostname(), f"{socket.gethostname()}.local")
    return frozenset(name.lower() for name in ("localhost", host, *own, *others))


class _RefusedError(Exception):
    def __init__(self, status: int, reason: str = "not found") -> None:
        self.status, self.reason = status, reason


class Gate:
    """ASGI middleware: everyone has a cookie, and gets only what the page needs and what is theirs."""

    def __init__(self, app: Callable[..., Awaitable[None]], visitors: Visitors, hosts: frozenset[str]) -> None:
        self._app, self._visitors, self._hosts = app, visitors, hosts

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer, or let the application answer."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page opens no web sockets
            await send({"type": "websocket.close", "code": 1008})
            return
        known = visitor_of(_cookies(scope))
        visitor = known or secrets.token_urlsafe(24)
        try:
            self._check_origin(scope)
            receive = await self._check(visitor, scope, receive)
        except _RefusedError as refusal:
            text = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": refusal.status, "headers": text})
            await send({"type": "http.response.body", "body": refusal.reason.encode()})
            return
        if known is None:
            scope, send = _introduced(scope, send, visitor)
        if scope["method"] == "POST" and _path(scope).rstrip("/").endswith("/upload"):
            send = self._noting_uploads(visitor, send)
        await self._app(scope, self._noting_who_leaves(scope, receive), send)

    def _check_origin(self, scope: Message) -> None:
        """Refuse a request for another host than this one, and one that another page has caused."""
        host = _header(scope, b"host")
        if not self._is_ours(host):
            name = _hostname(host) or "none"
            raise _RefusedError(403, f"the page is not at the address {name}: start it with --allow-host {name}")
        origin = _header(scope, b"origin")
        reading = scope["method"] in ("GET", "HEAD")
        if origin is not None and urlsplit(origin).netloc.lower() != (host or "").lower():
            raise _RefusedError(403, "another page has asked; open the page itself")
        if not reading and _header(scope, b"sec-fetch-site") not in (None, "same-origin", "none"):
            raise _RefusedError(403, "another page has asked; open the page itself")

    def _is_ours(self, host: str | None) -> bool:
        name = _hostname(host)
        if name is None:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.lower().rstrip(".") in self._hosts
        return True

    async def _check(self, visitor: str, scope: Message, receive: Receive) -> Receive:
        """Refuse what is not for this visitor; returns how to receive a body that was read for it."""
        path, method = _path(scope), scope["method"]
        if file := _FILE.fullmatch(path):
            if method not in ("GET", "HEAD") or "\0" in file[1] or not self._visitors.owns(visitor, file[1]):
                raise _RefusedError(404)
            return receive
        allowed = {"GET": _GET, "HEAD": _GET, "POST": _POST}.get(method)
        if allowed is None or not allowed.fullmatch(path):
            raise _RefusedError(404)
        sessions = [value for name, value in _query(scope) if name == "session_hash"]
        if heartbeat := _HEARTBEAT.fullmatch(path):
            sessions.append(heartbeat[1])
        if method == "POST" and not path.rstrip("/").endswith("/upload"):
            body = await _body(receive)
            sessions += _named_in(body)
            receive = _again(body, receive)
        if not all(self._visitors.hears(visitor, session) for session in sessions):
            raise _RefusedError(404)
        return receive

    def _noting_who_leaves(self, scope: Message, receive: Receive) -> Receive:
        """Notice a browser that closes the connection on which it hears of what is made for it."""
        sessions = [value for name, value in _query(scope) if name == "session_hash"]
        if not _path(scope).endswith("/queue/data") or not sessions:
            return receive

        async def noting() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                self._visitors.left(sessions[-1])
            return message

        return noting

    def _noting_uploads(self, visitor: str, send: Send) -> Send:
        body, status = bytearray(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif status == 200:
                body.extend(message.get("body", b""))
                if not message.get("more_body"):  # before the browser knows where it is
                    self._visitors.brought(visitor, parse_json(body.decode(), list, "upload"))
            await send(message)

        return noting


def _introduced(scope: Message, send: Send, visitor: str) -> tuple[Message, Send]:
    """Give a new visitor a cookie, which the application sees as if the browser had it already."""
    others = [value for name, value in scope["headers"] if name == b"cookie"]
    cookie = b"; ".join([*others, f"{COOKIE}={visitor}".encode()])
    headers = [(name, value) for name, value in scope["headers"] if name != b"cookie"]

    async def introducing(message: Message) -> None:
        if message["type"] == "http.response.start":
            secure = "; Secure" if scope.get("scheme") == "https" else ""
            value = f"{COOKIE}={visitor}; Path=/; HttpOnly; SameSite=Lax{secure}"
            message = {**message, "headers": [*message["headers"], (b"set-cookie", value.encode())]}
        await send(message)

    return {**scope, "headers": [*headers, (b"cookie", cookie)]}, introducing


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _RefusedError(400, "the request was broken off")
        body.extend(message.get("body", b""))
        if len(body) > _MOST_BODY:
            raise _RefusedError(413, "the request is too large")
        if not message.get("more_body"):
            return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read once more, then whatever else comes."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _named_in(body: bytes) -> list[str]:
    """Return every session that a JSON body names, of keys that stand there twice both."""
    found: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for name, value in pairs:
            if name == "session_hash" and value is not None:
                if not isinstance(value, str):
                    raise _RefusedError(400, "a session is a text")
                found.append(value)
        return dict(pairs)

    try:
        json.loads(body, object_pairs_hook=note)
    except (ValueError, RecursionError):
        raise _RefusedError(400, "the request is no JSON") from None
    return found


def _query(scope: Message) -> Iterator[tuple[str, str]]:
    yield from parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)


def _path(scope: Message) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path") or "")


def _header(scope: Message, name: bytes) -> str | None:
    """Return the one value of a header; several are refused."""
    values = [value for key, value in scope["headers"] if key.lower() == name]
    if len(values) > 1:
        raise _RefusedError(400, f"more than one {name.decode()}")
    return values[0].decode("latin-1") if values else None


def _hostname(host: str | None) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname if host else None
    except ValueError:
        return None


def _cookies(scope: Message) -> dict[str, str]:
    given = b"; ".join(value for name, value in scope["headers"] if name == b"cookie")
    try:
        found = SimpleCookie(given.decode("latin-1"))
    except CookieError:
        return {}
    return {name: morsel.value for name, morsel in found.items()}
