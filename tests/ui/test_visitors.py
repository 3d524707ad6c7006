"""What is one visitor's is no other's."""

import asyncio
import json
import re

import pytest

from unleak.ui.visitors import Gate, Visitors, visitor_of

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


def ask(visitors, path, *, method="GET", cookie=None, query=b"", body=b"[]"):
    """Status, headers and body of an answer, and the scope that the application saw, None if it saw none."""
    seen, sent = [], []

    async def app(scope, receive, send):
        seen.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body[:3], "more_body": True})
        await send({"type": "http.response.body", "body": body[3:]})

    async def send(message):
        sent.append(message)

    headers = [] if cookie is None else [(b"cookie", cookie.encode())]
    scope = {"type": "http", "method": method, "path": path, "query_string": query, "headers": headers}
    asyncio.run(Gate(app, visitors)(scope, None, send))
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


def test_a_cookie_names_a_visitor_or_none():
    assert visitor_of({"unleak_visitor": A}) == A
    assert visitor_of({"unleak_visitor": A + "x"}) is None
    assert visitor_of({}) is None
