import csv
import json

import pytest

from unleak.data.image import MediaError
from unleak.data.sources import folder_videos, listed_videos, webvid_videos


@pytest.fixture
def folder(tmp_path):
    for name in ("a.mp4", "sub/b.webm", "sub/c.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "sub" / "c.txt").write_text("rain\n  on a roof\n")
    return tmp_path


def written(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_a_folder_with_captions_beside(folder):
    found = [(str(entry.path.relative_to(folder)), entry.caption) for entry in folder_videos(folder)]
    assert found == [("a.mp4", ""), ("sub/b.webm", ""), ("sub/c.mp4", "rain on a roof")]


@pytest.mark.parametrize("content", [b"caf\xe9", b"x" * (2**24 + 1), "rain".encode("utf-16")])
def test_a_caption_that_cannot_be_read_costs_its_video_alone(folder, content):
    (folder / "a.txt").write_bytes(content)
    first, *others = folder_videos(folder)
    assert first.fault.startswith(f"{folder / 'a.txt'}: ")
    assert "\n" not in first.fault
    assert [(one.caption, one.fault) for one in others] == [("", None), ("rain on a roof", None)]


@pytest.mark.parametrize("duration", ["PT.S", "PT1.2.3S", "PT", "nan", "-1", "soon"])
def test_a_duration_that_is_none_is_left_out(folder, duration):
    (found,) = listed_videos(written(folder / "list.csv", [("path", "duration"), ("a.mp4", duration)]))
    assert found.duration is None


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_list(folder, kind):
    rows = [("a.mp4", "two, three\nlines", "4.5"), ("sub/c.mp4", "", "")]
    if kind == "csv":
        path = written(folder / "list.csv", [("Path", "caption", "duration"), *rows])
    else:
        path = folder / "list.jsonl"
        path.write_text(
            "\n".join(json.dumps(dict(zip(("video", "text", "duration"), row, strict=True))) for row in rows)
        )
    first, second = listed_videos(path)
    assert (first.path, first.caption, first.duration) == (folder / "a.mp4", "two, three\nlines", 4.5)
    assert (second.path, second.caption, second.duration) == (folder / "sub/c.mp4", "", None)


@pytest.mark.parametrize(
    "name", ["../outside.mp4", "/etc/outside.mp4", "link.mp4", "linked/x.mp4", "sub/../../outside.mp4"]
)
def test_paths_stay_in_the_folder_of_the_list(tmp_path, name):
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "sub").mkdir()
    (tmp_path / "outside.mp4").write_bytes(b"x")
    (inner / "link.mp4").symlink_to(tmp_path / "outside.mp4")
    (inner / "linked").symlink_to(tmp_path)
    path = written(inner / "list.csv", [("path",), (name,)])
    with pytest.raises(MediaError, match=r"list.csv, line 2: .*mp4 is outside the list's folder"):
        listed_videos(path)
    assert len(listed_videos(path, allow_outside=True)) == 1


def test_webvid_in_both_layouts(tmp_path):
    header = ("videoid", "contentUrl", "duration", "page_dir", "name")
    rows = [("1", "https://a", "PT00H00M12S", "000_050", "a dog"), ("2", "https://b", "PT00H01M00S", "000_050", "rain")]
    rows += [("3", "https://c", "", "000_051", "gone"), ("../../etc/passwd", "", "", "..", "evil")]
    table = written(tmp_path / "results.csv", [header, *rows])
    for layout in ("000_050/{}.mp4", "{}.mp4"):
        videos = tmp_path / layout.split("/")[0].format("flat")
        for identity in ("1", "2"):
            path = videos / layout.format(identity)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        found, missing = webvid_videos(table, videos)
        assert [(entry.caption, entry.duration) for entry in found] == [("a dog", 12.0), ("rain", 60.0)]
        assert all(entry.path.is_relative_to(videos) for entry in found)
        assert missing == 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(MediaError, match=r"none of the 4 videos of .*results.csv"):
        webvid_videos(table, tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "caption\nrain\n", "no column path, video, file or file_name in its first line"),
        ("a.csv", "path,caption\na.mp4\n", "line 2: 1 values for 2 columns; quote texts with commas"),
        ("a.csv", "path,caption\n,rain\n", "line 2: no video; give it as path"),
        ("a.csv", "path\n", "no videos in it; give a line for each"),
        ("a.jsonl", '{"path": "a.mp4"}\n[1]\n', "line 2: no JSON object"),
        ("a.jsonl", '{"path": 3}', "line 1: path should be text, given 3"),
        ("a.csv", b"path\n\xff\xfe\n", "not a text file in UTF-8"),
    ],
)
def test_what_is_no_list(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(MediaError) as refusal:
        listed_videos(tmp_path / name)
    assert message in str(refusal.value)
