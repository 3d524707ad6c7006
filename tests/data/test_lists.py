import json

import pytest
from PIL import Image

from unleak.data.image import MediaError
from unleak.data.lists import Entry, find_entries, read_list, read_prompt_folder, read_prompts


@pytest.fixture
def shots(tmp_path, monkeypatch):
    """A folder of lists, demo/, with photos in demo/image/; we are in its parent, as users of the paper's lists are."""
    (tmp_path / "demo" / "image").mkdir(parents=True)
    for name in ("1", "2", "10"):
        Image.new("RGB", (4, 4)).save(tmp_path / "demo" / "image" / f"{name}.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "private.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "demo"


def write(path, *rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


@pytest.mark.parametrize("place", ["image/1.png", "demo/image/1.png"])
def test_the_papers_list(shots, place):
    path = write(shots / "demo.jsonl", {"dir": place, "text": "Fireworks exploding.", "id": "0000040100"}, "", "")
    (entry,) = read_list(path)
    assert entry.photo.samefile(shots / "image" / "1.png")
    assert (entry.prompt, entry.name, entry.mask) == ("Fireworks exploding.", "0000040100", None)


def test_a_csv_with_quotes_a_mask_and_a_column_that_is_not_ours(shots):
    path = shots / "shots.csv"
    path.write_text('\ufeffImage,Prompt,mask,rating\nimage/2.png,"one, two",image/1.png,5\n\nimage/1.png,,,\n', "utf-8")
    first, second = read_list(path)
    assert (first.prompt, first.photo.name, first.mask.name) == ("one, two", "2.png", "1.png")
    assert (second.prompt, second.mask) == (None, None)


def test_a_prompt_may_hold_what_breaks_lines_in_print(shots):
    """The defect: both files were split with `splitlines`, which also splits at U+2028, and within quotes."""
    path = shots / "a.jsonl"
    path.write_text('{"dir": "image/1.png", "text": "one\u2028two\x85three"}\n', "utf-8")
    assert [entry.prompt for entry in read_list(path)] == ["one\u2028two\x85three"]
    path = shots / "a.csv"
    path.write_text('dir,text\nimage/1.png,"one\ntwo"\nimage/2.png,"three\u2028four"\n', "utf-8")
    assert [entry.prompt for entry in read_list(path)] == ["one\ntwo", "three\u2028four"]
    (shots / "p.txt").write_text("one\u2028two\r\nthree\n", "utf-8")
    assert read_prompts(shots / "p.txt", 2) == ["one\u2028two", "three"]
    with pytest.raises(MediaError, match=r"p\.txt: 2 lines for 3 photos; give one line for each, in order"):
        read_prompts(shots / "p.txt", 3)


def test_photos_whose_names_are_no_text(shots):
    photo = shots / "image" / "\udcff.png"
    (shots / "image" / "1.png").rename(photo)
    path = write(shots / "a.jsonl", {"dir": "image/\udcff.png", "text": "x"})
    assert [entry.photo for entry in read_list(path)] == [photo]


def test_a_prompt_folder_is_in_the_order_of_names(shots):
    write(shots / "image" / "test_prompts.txt", "one", "", "ten", "two ")
    expected = [("1.png", "one"), ("10.png", "ten"), ("2.png", "two")]
    for entries in (read_prompt_folder(shots / "image"), find_entries([shots / "image"])):
        assert [(entry.photo.name, entry.prompt) for entry in entries] == expected
    without = find_entries([shots / "image"], prompt_folders=False)
    assert [(entry.photo.name, entry.prompt) for entry in without] == [(name, None) for name, _ in expected]


def test_sources_of_all_kinds_together(shots):
    path = write(shots / "a.jsonl", {"dir": "image/2.png", "text": "two"})
    entries = find_entries([path, "private.png", "private.png"])
    assert [entry.photo.name for entry in entries] == ["2.png", "private.png"]
    assert entries[1] == Entry(shots.parent / "private.png") or entries[1].photo.name == "private.png"
    assert [entry.prompt for entry in find_entries(["demo/image"])] == [None] * 3


@pytest.mark.parametrize("place", ["../private.png", "{root}/private.png", "link.png", "private.png"])
def test_outside_the_lists_folder_only_if_allowed(shots, place):
    (shots / "link.png").symlink_to(shots.parent / "private.png")
    path = write(shots / "a.jsonl", {"dir": place.format(root=shots.parent), "text": "x"})
    with pytest.raises(MediaError, match=r"a.jsonl, line 1: .* is outside the list's folder; give --allow-outside"):
        read_list(path)
    (entry,) = read_list(path, allow_outside=True)
    assert entry.photo.samefile(shots.parent / "private.png")


def test_what_is_outside_is_not_told_to_be_there_or_not(shots):
    path = write(shots / "a.jsonl", {"dir": "../no-such-file.png"})
    with pytest.raises(MediaError, match="outside the list's folder"):
        read_list(path)


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("a.jsonl", [], "a.jsonl: no photos in it"),
        ("a.jsonl", [{"dir": "image/1.png"}, "nonsense"], 'line 2: no JSON object; give such as {"dir"'),
        ("a.jsonl", ["[1]"], "line 1: no JSON object"),
        ("a.jsonl", ["[" * 100_000], "line 1: JSON nested too deeply"),
        ("a.jsonl", [{"text": "x"}], "line 1: no photo; give it as dir, image or path"),
        ("a.jsonl", [{"dir": 3}], "line 1: dir should be text, given 3"),
        ("a.jsonl", [{"dir": "image/\0.png"}], "line 1: dir should be text without zero bytes"),
        ("a.jsonl", [{"dir": "image/3.png"}], "image/3.png: no such file, neither in .*demo nor from here"),
        ("a.jsonl", [{"dir": "image/1.png", "mask": "image/3.png"}], "image/3.png: no such file"),
        (
            "a.jsonl",
            [{"dir": "image/1.png", "id": "../x"}],
            "id is no name for a file: give one without slashes, given '../x'",
        ),
        ("a.jsonl", [{"dir": "image/1.png", "text": "a"}, {"dir": "image/1.png", "text": "b"}], "line 2: its video"),
        ("a.jsonl", ["\xff"], "not a text file in UTF-8"),
        ("a.jsonl", [{"dir": "image/1.png", "id": "\ud800"}], "id is no name for a file: it holds half a character"),
        ("a.jsonl", [{"dir": "image/1.png", "id": "x" * 300}], "id is too long for a file's name: give at most 240"),
        ("a.jsonl", ['{"dir": "image/1.png", "seed": ' + "1" * 5000 + "}"], "line 1: .*a number of 5000 digits"),
        ("a.jsonl", [{"dir": "image/1.png", "seed": True}], "seed is no whole number of 0 or more, given True"),
        ("a.csv", ["photo,text", "image/1.png,x"], "a.csv: no column dir, image or path in its first line"),
        ("a.csv", ["dir,text", "image/1.png,one, two"], "line 2: 3 values for 2 columns"),
        ("a.csv", ["dir,text", 'image/1.png,"open'], "line 2: unexpected end of data"),
        ("image/p.txt", ["one", "two"], "p.txt: 2 prompts for the 3 photos beside it"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_place(shots, name, rows, message):
    path = write(shots / name, *rows)
    if rows == ["\xff"]:
        path.write_bytes(b"\xff\xfe")
    with pytest.raises(MediaError, match=message) as error:
        find_entries([path.parent if path.suffix == ".txt" else path])
    assert "\n" not in str(error.value)


def test_a_list_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_list(tmp_path / "none.jsonl")
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("x")
    with pytest.raises(MediaError, match=r"2 \.txt files in it"):
        read_prompt_folder(tmp_path)
