"""A Hub on this machine: repositories of real small files, a store that large ones are redirected to, and mishaps."""

import hashlib
import json
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

COMMIT = "c0ffee" * 6 + "c0de"
_LARGE = (".safetensors", ".ckpt", ".pt", ".bin")


@dataclass(frozen=True)
class Mishap:
    """What happens to a request instead: a status, or a body broken off, spoilt or late."""

    status: int | None = None
    code: str | None = None
    """What the Hub says in X-Error-Code."""
    keep: int | None = None
    """Bytes of the body before the connection breaks."""
    spoil: bool = False
    late: float = 0.0
    """Seconds before the answer."""
    method: str = "GET"


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    range: str | None
    token: str | None


@dataclass
class Hub:
    """`repositories`: id -> path -> content; `mishaps`: part of an address -> what happens, one after the other."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    mishaps: dict[str, list[Mishap]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    store: "Hub | None" = None
    """Where large files are redirected to."""
    ends: threading.Event = field(default_factory=threading.Event)

    def add(self, name: str, folder: Path) -> dict[str, bytes]:
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.repositories[name] = files
        return files

    def got(self, part: str, method: str = "GET") -> list[Asked]:
        return [one for one in self.asked if part in one.path and one.method == method]

    def start(self) -> "Hub":
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=lambda: self.server.serve_forever(poll_interval=0.01), daemon=True).start()
        return self

    def stop(self) -> None:
        self.ends.set()
        self.server.shutdown()
        self.server.server_close()

    def mishap(self, method: str, path: str) -> Mishap | None:
        for part, waiting in self.mishaps.items():
            if part in path and waiting and waiting[0].method == method:
                return waiting.pop(0)
        return None


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def git(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def answer(self, status, body=b"", **headers):
            self.send_response(status)
            headers = {"Content-Length": str(len(body)), **headers}
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command == "GET":
                with suppress(ConnectionError):  # of a client that waited no longer
                    self.wfile.write(body)

        def do_GET(self):
            path = unquote(self.path)
            hub.asked.append(Asked(self.command, path, self.headers.get("Range"), self.headers.get("Authorization")))
            mishap = hub.mishap(self.command, path) or Mishap()
            if mishap.late:
                hub.ends.wait(mishap.late)
            if mishap.status:
                said = {"X_Error_Code": mishap.code} if mishap.code else {}
                return self.answer(mishap.status, b"{}", Retry_After="0", **said)
            if path.startswith("/store/"):
                return self.file(hub.repositories[""][path.removeprefix("/store/")], mishap)
            name = next((name for name in hub.repositories if f"/{name}/" in f"{path.partition('?')[0]}/"), None)
            if name is None:
                return self.answer(404, X_Error_Code="RepoNotFound")
            if "/tree/" in path:
                return self.answer(200, json.dumps(_tree(hub.repositories[name])).encode())
            if path.startswith("/api/"):
                return self.answer(200, json.dumps(_about(name, hub.repositories[name])).encode())
            wanted = path.split("/resolve/")[1].partition("/")[2]
            body = hub.repositories[name].get(wanted)
            if body is None:
                return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
            digest = sha256(body) if wanted.endswith(_LARGE) else git(body)
            about = {"ETag": f'"{digest}"', "X_Repo_Commit": COMMIT}
            if hub.store is not None and wanted.endswith(_LARGE):
                hub.store.repositories.setdefault("", {})[digest] = body
                about |= {"X_Linked_ETag": f'"{digest}"', "X_Linked_Size": str(len(body))}
                return self.answer(302, Location=f"{hub.store.address}/store/{digest}", **about)
            return self.file(body, mishap, **about)

        def file(self, body, mishap, **about):
            status, wanted = 200, self.headers.get("Range")
            if mishap.spoil:
                body = body[:-1] + bytes([body[-1] ^ 1])
            if wanted:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                about["Content_Range"] = f"bytes {first}-{last or len(body) - 1}/{len(body)}"
                status, body = 206, body[int(first) : int(last or len(body)) + 1]
            if mishap.keep is not None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: mishap.keep])
                self.wfile.flush()
                self.close_connection = True
                return self.connection.shutdown(2)
            return self.answer(status, body, **about)

        def do_HEAD(self):
            self.do_GET()

    return Handler


def _about(name: str, files: dict[str, bytes]) -> dict:
    listed = []
    for path, body in files.items():
        one = {"rfilename": path, "size": len(body), "blobId": git(body)}
        if path.endswith(_LARGE):
            one["lfs"] = {"sha256": sha256(body), "size": len(body), "pointerSize": 130}
        listed.append(one)
    return {"id": name, "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "likes": 0, "siblings": listed}


def _tree(files: dict[str, bytes]) -> list[dict]:
    listed = []
    for path, body in files.items():
        one = {"type": "file", "path": path, "size": len(body), "oid": git(body)}
        if path.endswith(_LARGE):
            one["lfs"] = {"oid": sha256(body), "size": len(body), "pointerSize": 130}
        listed.append(one)
    return listed
