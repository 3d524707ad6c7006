"""Small files, read once into checked values: what is no file, no text or no JSON is one line with the file's name."""

import os
import socket
import sys

import pytest
from pydantic import TypeAdapter

from unleak.data.files import open_regular
from unleak.data.image import MediaError
from unleak.data.reading import Record, Row, json_rows, parse_json, read_json, read_text, table_rows


class Made(Record):
    name: str
    level: float = 0.0


class Shot(Row):
    path: str
    seed: int | None = None


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "socket"])
def test_what_is_no_regular_file_is_refused_by_what_it_is(tmp_path, kind, monkeypatch):
    path = tmp_path / "thing"
    monkeypatch.chdir(tmp_path)
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "socket":
            listener = socket.socket(socket.AF_UNIX)
            listener.bind("thing")
    with pytest.raises(MediaError, match=f"thing: a {kind}; give a regular file"):
        open_regular(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfea\x00", "not a text file in UTF-8 but in UTF-16; save it as UTF-8"),
        ("é".encode("latin-1"), "not a text file in UTF-8; save it as UTF-8"),
        (b"a" * (2**24 + 1), "larger than the 16 MiB that are read of such a file"),
    ],
)
def test_text_that_is_not_read(tmp_path, content, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(MediaError, match=r"a\.txt: ") as refusal:
        read_text(tmp_path / "a.txt")
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "JSON nested too deeply"),
        ('{"name": ' + "[" * 100 + "]" * 100 + "}", "JSON nested too deeply; give one of at most 64 levels"),
        ('{"name": "a", "level": ' + "1" * 5000 + "}", "a number of 5000 digits"),
        ('{"name": "a", "level": NaN}', "level should be a finite number, given nan"),
        ('{"name": "a", "level": 1e999}', "level should be a finite number, given inf"),
        ('{"name": "a", "level": "700"}', "level should be a number, given '700'"),
        ('{"level": 1}', "name is missing; give it"),
        ("[1]", "it should be a JSON object"),
        ("{", "not JSON that can be read"),
        ('{"name": 3' + " " * 100 + "}", "name should be text, given 3"),
        ('{"name": ' + str([1] * 1000) + "}", "name should be text, given [1, 1"),
    ],
)
def test_json_that_is_not_accepted_is_one_short_line(text, message):
    with pytest.raises(MediaError, match="where: ") as refusal:
        parse_json(text, Made, "where")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 200


def test_names_that_are_no_text_survive(tmp_path):
    (tmp_path / "a.json").write_text('{"name": "\\udcff", "level": 2, "other": NaN}')
    assert read_json(tmp_path / "a.json", Made) == Made(name="\udcff", level=2.0)


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_a_line_feed_ends_a_line(tmp_path, mark):
    (tmp_path / "a.jsonl").write_text(f'{{"text": "one{mark}two"}}\r\n\n{{"text": "three"}}', newline="")
    if ord(mark) < 32:  # JSON itself wants these escaped
        with pytest.raises(MediaError, match="line 1: damaged, not JSON that can be read"):
            list(json_rows(tmp_path / "a.jsonl", "{}"))
    else:
        rows = list(json_rows(tmp_path / "a.jsonl", "{}"))
        assert [row["text"] for _, row in rows] == [f"one{mark}two", "three"]
        assert rows[1][0].endswith("a.jsonl, line 3")


def test_quoted_line_breaks_of_a_table_are_kept(tmp_path):
    (tmp_path / "a.csv").write_text('\ufeffpath,text\na.png,"one\ntwo\r\nthree\u2028"\n\nb.png,x\n', newline="")
    rows = list(table_rows(tmp_path / "a.csv", ["path"]))
    assert rows == [
        (f"{tmp_path}/a.csv, line 4", {"path": "a.png", "text": "one\ntwo\r\nthree\u2028"}),
        (f"{tmp_path}/a.csv, line 6", {"path": "b.png", "text": "x"}),
    ]


def test_a_line_without_end_is_not_held_in_memory(tmp_path):
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.truncate(2**34)  # sparse: no bytes on the disk
    with pytest.raises(MediaError, match="a line is longer than 1 MiB"):
        list(json_rows(tmp_path / "a.jsonl", "{}"))


def test_an_empty_field_of_a_row_is_none_at_all():
    assert TypeAdapter(Shot).validate_python({"path": "a", "seed": ""}) == Shot(path="a")


def test_reading_imports_no_torch():
    import subprocess

    code = "import sys, unleak.data.reading; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
