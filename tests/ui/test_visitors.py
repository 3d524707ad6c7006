"""What is one visitor's is no other's."""

import asyncio
import json
import re

import pytest

from unleak.ui.gate import Gate, allowed_hosts
from unleak.ui.visitors import LeftError, Visitors, visitor_of

A, B = "a" * 32, "b" * 32


@pytest.fixture
def visitors(tmp_path):
    return Visitors(tmp_path)


def test_rooms_are_new_and_of_one_visitor_and_do_not_tell_the_secret(visitors, tmp_path):
    rooms = [visitors.room(A), visitors.room(A), visitors.room(B)]
    assert len(set(rooms)) == 3
    assert all(room.is_dir() and room.is_relative_to(tmp_path) for room in rooms)
    assert A not in str(rooms[0])
    inside = str(rooms[0] / "video.mp4")
    assert visitors.owns(A, inside)
    assert not visitors.owns(B, inside)
    assert not visitors.owns(B, str(rooms[2] / "../.." / rooms[0].relative_to(rooms[0].parents[1]) / "video.mp4"))


def test_an_upload_is_of_all_who_brought_it(visitors, tmp_path):
    file = str(tmp_path / "sha" / "photo.jpg")
    visitors.brought(A, [file])
    assert visitors.owns(A, file)
    assert not visitors.owns(B, file)
    visitors.brought(B, [file])
    assert visitors.owns(A, file)
    assert visitors.owns(B, file)
    assert not visitors.owns(A, str(tmp_path / "sha" / "other.jpg"))


def test_what_is_outside_the_folder_or_a_link_to_it_is_nobodys(visitors, tmp_path):
    visitors.brought(A, ["/etc/passwd"])
    assert not visitors.owns(A, "/etc/passwd")
    link = visitors.room(A) / "link"
    link.symlink_to("/etc/passwd")
    assert not visitors.owns(A, str(link))


def test_a_session_is_of_the_first_who_asks(visitors):
    assert visitors.hears(A, "one")
    assert not visitors.hears(B, "one")
    assert visitors.hears(A, "one")


def test_what_is_remembered_is_bounded(visitors, monkeypatch, tmp_path):
    monkeypatch.setattr("unleak.ui.visitors._MOST", 2)
    files = [str(tmp_path / name) for name in "xyz"]
    visitors.brought(A, files)
    assert [visitors.owns(A, file) for file in files] == [False, True, True]


# The gate


def ask(visitors, path, *, method="GET", cookie=None, query=b"", body=b"[]", given=b"", headers=()):
    """Status, headers and body of an answer, and the scope that the application saw, None if it saw none."""
    seen, sent = [], []

    async def app(scope, receive, send):
        seen.append(scope)
        if given:
            assert (await receive())["body"] == given
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body[:3], "more_body": True})
        await send({"type": "http.response.body", "body": body[3:]})

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": given}

    headers = [*headers] if any(name == b"host" for name, _ in headers) else [(b"host", b"localhost:7860"), *headers]
    headers += [] if cookie is None else [(b"cookie", cookie.encode())]
    scope = {"type": "http", "method": method, "path": path, "query_string": query, "headers": headers}
    asyncio.run(Gate(app, visitors, allowed_hosts("127.0.0.1", ["shots.example"]))(scope, receive, send))
    text = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], dict(sent[0]["headers"]), text, seen[0] if seen else None


def test_who_has_no_cookie_gets_one_that_the_application_sees_too(visitors):
    for cookie in (None, "theme=dark", "unleak_visitor=short", "unleak_visitor=" + "!" * 32):
        _, headers, _, scope = ask(visitors, "/", cookie=cookie)
        told = headers[b"set-cookie"].decode()
        assert re.fullmatch(r"unleak_visitor=[\w-]{32}; Path=/; HttpOnly; SameSite=Lax", told)
        given = dict(scope["headers"])[b"cookie"].decode()
        assert told.partition(";")[0] in given
        assert "theme=dark" in given or cookie != "theme=dark"
    _, headers, _, scope = ask(visitors, "/", cookie=f"theme=dark; unleak_visitor={A}")
    assert b"set-cookie" not in headers


def test_an_upload_can_be_fetched_by_who_brought_it_alone(visitors, tmp_path):
    file = str(tmp_path / "sha" / "a.png")
    mine, theirs = (f"unleak_visitor={one}" for one in (A, B))
    assert ask(visitors, f"/gradio_api/file={file}", cookie=mine)[0] == 404
    upload = ask(visitors, "/gradio_api/upload", method="POST", cookie=mine, body=json.dumps([file]).encode())
    assert json.loads(upload[2]) == [file]
    for form in ("/gradio_api/file={}", "/gradio_api/file/{}", "/file={}"):
        assert ask(visitors, form.format(file), cookie=mine)[0] == 200
        assert ask(visitors, form.format(file), cookie=theirs)[0] == 404
        assert ask(visitors, form.format(file))[0] == 404


@pytest.mark.parametrize("path", ["/gradio_api/file=http://127.0.0.1/", "/gradio_api/file=\0", "/gradio_api/file="])
def test_nothing_but_files_of_the_folder_is_given(visitors, path):
    status, _, text, scope = ask(visitors, path, cookie=f"unleak_visitor={A}")
    assert (status, text, scope) == (404, b"not found", None)


def test_news_of_a_session_go_to_one_visitor(visitors):
    mine, theirs = (f"unleak_visitor={one}" for one in (A, B))
    data = ("/gradio_api/queue/data",)
    assert ask(visitors, *data, cookie=mine, query=b"session_hash=s1")[0] == 200
    assert ask(visitors, *data, cookie=theirs, query=b"x=1&session_hash=s1")[0] == 404
    assert ask(visitors, "/gradio_api/heartbeat/s1", cookie=theirs)[0] == 404
    assert ask(visitors, "/gradio_api/heartbeat/s1", cookie=mine)[0] == 200


@pytest.mark.parametrize(
    "query",
    [
        b"session%5Fhash=s1",
        b"session_hash=s%31",
        b"session_hash=mine&session_hash=s1",
        b"session_hash=s1&session_hash=mine",
        b"x;session_hash=s1&session_hash=s1",
        b"%73ession_hash=s1",
    ],
)
def test_every_way_to_write_a_session_is_compared(visitors, query):
    mine, theirs = (f"unleak_visitor={one}" for one in (A, B))
    ask(visitors, "/gradio_api/queue/data", cookie=mine, query=b"session_hash=s1")
    ask(visitors, "/gradio_api/queue/data", cookie=theirs, query=b"session_hash=mine")
    assert ask(visitors, "/gradio_api/queue/data", cookie=theirs, query=query)[0] == 404


@pytest.mark.parametrize("path", ["/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset/"])
def test_nobody_acts_in_the_session_of_another(visitors, path):
    mine, theirs = (f"unleak_visitor={one}" for one in (A, B))
    body = b'{"session_hash": "s1", "data": []}'
    assert ask(visitors, path, method="POST", cookie=mine, given=body)[0] == 200
    for other in (body, b'{"session_hash": "mine", "session\\u005fhash": "s1", "session_hash": "mine"}'):
        assert ask(visitors, path, method="POST", cookie=theirs, given=other)[0] == 404
    for odd, status in ((b"[" * 100_000, 400), (b'{"session_hash": 3}', 400), (b" " * 2**21, 413), (b"", 400)):
        assert ask(visitors, path, method="POST", cookie=mine, given=odd)[0] == status


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/gradio_api/proxy=http://127.0.0.1/"),
        ("GET", "/gradio_api/deep_link"),
        ("POST", "/gradio_api/run/predict"),
        ("POST", "/gradio_api/api/predict"),
        ("POST", "/gradio_api/call/on_animate"),
        ("GET", "/gradio_api/call/on_animate/1"),
        ("POST", "/gradio_api/component_server"),
        ("GET", "/gradio_api/stream/s1/1/2/playlist.m3u8"),
        ("POST", "/gradio_api/vibe-code"),
        ("GET", "/monitoring/summary"),
        ("POST", "/login"),
        ("POST", "/config"),
        ("PUT", "/"),
        ("OPTIONS", "/gradio_api/upload"),
        ("GET", "//gradio_api/queue/data"),
        ("GET", "/gradio_api/heartbeat/a/b"),
    ],
)
def test_what_the_page_does_not_need_is_not_there(visitors, method, path):
    status, _, _, scope = ask(visitors, path, method=method, cookie=f"unleak_visitor={A}")
    assert (status, scope) == (404, None)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"localhost:7860", 200),
        (b"LOCALHOST", 200),
        (b"127.0.0.1:7860", 200),
        (b"[::1]:7860", 200),
        (b"192.168.1.7:7860", 200),
        (b"shots.example", 200),
        (b"evil.example:7860", 403),
        (b"127.0.0.1.evil.example", 403),
        (b"localhost.evil.example", 403),
        (b"", 403),
        (b"[::1", 403),
    ],
)
def test_a_page_that_makes_its_own_name_mean_this_machine_is_refused(visitors, host, status):
    assert ask(visitors, "/", headers=[(b"host", host)])[0] == status
    assert ask(visitors, "/", headers=[(b"host", b"localhost"), (b"host", host)])[0] == 400


def test_only_the_page_itself_writes(visitors):
    upload = {"path": "/gradio_api/upload", "method": "POST", "cookie": f"unleak_visitor={A}"}
    for name, value, status in (
        (b"origin", b"http://localhost:7860", 200),
        (b"origin", b"https://localhost:7860", 200),
        (b"origin", b"http://localhost:8000", 403),
        (b"origin", b"https://evil.example", 403),
        (b"origin", b"null", 403),
        (b"sec-fetch-site", b"same-origin", 200),
        (b"sec-fetch-site", b"cross-site", 403),
        (b"sec-fetch-site", b"same-site", 403),
    ):
        answer = ask(visitors, **upload, headers=[(name, value)])
        assert answer[0] == status, (name, value)
    assert ask(visitors, "/", headers=[(b"sec-fetch-site", b"cross-site")])[0] == 200  # a link to the page


def test_what_is_made_for_a_visitor_who_left_is_stopped(visitors):
    async def app(scope, receive, send):
        assert (await receive())["type"] == "http.disconnect"

    async def gone():
        return {"type": "http.disconnect"}

    headers = [(b"host", b"localhost"), (b"cookie", f"unleak_visitor={A}".encode())]
    scope = {"type": "http", "method": "GET", "path": "/gradio_api/queue/data", "headers": headers}
    visitors.check_here("s1")
    visitors.check_here(None)
    asyncio.run(Gate(app, visitors, allowed_hosts("::1"))(scope | {"query_string": b"session_hash=s1"}, gone, None))
    with pytest.raises(LeftError):
        visitors.check_here("s1")
    visitors.check_here("s2")
    assert ask(visitors, "/gradio_api/queue/data", cookie=f"unleak_visitor={A}", query=b"session_hash=s1")[0] == 200
    visitors.check_here("s1")  # the same page again


def test_web_sockets_are_closed(visitors):
    sent = []

    async def send(message):
        sent.append(message)

    gate = Gate(None, visitors, allowed_hosts("127.0.0.1"))
    asyncio.run(gate({"type": "websocket", "path": "/", "headers": []}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_a_cookie_names_a_visitor_or_none():
    assert visitor_of({"unleak_visitor": A}) == A
    assert visitor_of({"unleak_visitor": A + "x"}) is None
    assert visitor_of({}) is None
