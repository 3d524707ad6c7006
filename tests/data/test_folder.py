import os

import pytest
from PIL import Image

from unleak.data.folder import find_images, find_videos
from unleak.data.image import MediaError


@pytest.fixture
def shots(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("shots/b.jpg", "shots/a.PNG", "shots/.hidden.jpg", "shots/[1].jpg", "shots/deep/c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    for name in ("shots/notes.txt", "shots/v.mp4", "shots/deep/w.webm"):
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()


@pytest.mark.usefixtures("shots")
@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["shots"], ["[1].jpg", "a.PNG", "b.jpg"]),
        (["shots/*.jpg"], ["[1].jpg", "b.jpg"]),
        (["shots/**/*.jpg"], ["[1].jpg", "b.jpg", "c.jpg"]),
        (["shots/[1].jpg"], ["[1].jpg"]),  # a file that is there is no pattern
        (["shots/b.jpg", "shots"], ["b.jpg", "[1].jpg", "a.PNG"]),
        (["shots/notes.txt"], ["notes.txt"]),  # named, so taken; its content decides
    ],
)
def test_images_in_order_each_once(sources, expected):
    assert [path.name for path in find_images(sources)] == expected


@pytest.mark.usefixtures("shots")
def test_videos_are_found_in_sub_folders():
    assert [path.name for path in find_videos(["shots"])] == ["w.webm", "v.mp4"]


@pytest.mark.usefixtures("shots")
@pytest.mark.parametrize("source", ["none.jpg", "none/*.jpg", "empty", "shots/*.txt"])
def test_nothing_found_is_one_line(source):
    with pytest.raises(MediaError, match=r"no such file|no images in it; known endings are") as caught:
        find_images([source])
    assert str(caught.value).startswith(f"{source}: ")


@pytest.mark.usefixtures("shots")
def test_what_is_no_regular_file_is_found_so_that_whoever_opens_it_names_it():
    os.mkfifo("shots/p.png")
    os.symlink("nowhere", "shots/q.png")
    os.symlink("/dev/null", "shots/r.png")
    os.mkdir("shots/s.png")
    assert [path.name for path in find_images(["shots"])] == ["[1].jpg", "a.PNG", "b.jpg", "p.png", "q.png", "r.png"]
