import csv
import json

import numpy as np
import pytest

from unleak.cli.app import main
from unleak.data.video import write_video


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """One that moves, one that does not, one that is too short, one that is none; a sub-folder; captions."""
    folder = tmp_path_factory.mktemp("clips")
    picture = np.random.default_rng(0).integers(0, 256, (64, 200, 3), dtype=np.uint8)
    picture = picture.repeat(4, axis=0).repeat(4, axis=1)
    moving = np.stack([picture[:128, 8 * k : 8 * k + 192] for k in range(8)])
    (folder / "sub").mkdir()
    write_video(moving, folder / "sub" / "moves.mp4", fps=6)
    write_video(moving[:1].repeat(8, axis=0), folder / "still.mp4", fps=6)
    write_video(moving[:2], folder / "short.mp4", fps=6)
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "sub" / "moves.txt").write_text("noise, passing by\n")
    return folder


FEW = ["--num-frames", "4", "--fps", "6", "--size", "96x64", "--workers", "1"]


def test_it_reports_what_is_used_and_writes_what_is_kept(clips, tmp_path, capsys):
    keep = clips / "keep.csv"
    assert main(["data", "check", str(clips), *FEW, "--min-motion", "2", "--write", str(keep), "--json"]) == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert report["used"] == 1
    reasons = {entry["video"].rsplit("/", 1)[1]: entry["reason"] for entry in report["dropped"]}
    assert sorted(reasons) == ["broken.mp4", "short.mp4", "still.mp4"]
    assert "less than 2" in reasons["still.mp4"]
    assert "4 needed" in reasons["short.mp4"]
    assert sum(bin["videos"] for bin in report["histogram"]) == 2
    assert max(report["motion"].values()) > 2 > min(report["motion"].values())
    assert said.err.count("dropped: ") == 3
    (row,) = csv.DictReader(keep.open())
    assert row["path"] == "sub/moves.mp4"
    assert row["caption"] == "noise, passing by"
    assert float(row["duration"]) == pytest.approx(8 / 6, abs=0.01)
    assert main(["data", "check", str(keep), *FEW]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "1 of 1 videos would be used"
    keep.unlink()


def test_a_name_that_no_list_holds_costs_that_video_alone(clips, tmp_path, capsys):
    for name in ("a", "\udcff"):
        (tmp_path / f"{name}.mp4").write_bytes((clips / "sub" / "moves.mp4").read_bytes())
    assert main(["data", "check", str(tmp_path), *FEW, "--write", str(tmp_path / "keep.csv")]) == 0
    assert "its name is not UTF-8, so no list holds it; rename it" in capsys.readouterr().err
    (row,) = csv.DictReader((tmp_path / "keep.csv").open())
    assert row["path"] == "a.mp4"


def test_a_caption_that_is_no_text_costs_that_video_alone(clips, tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / f"{name}.mp4").write_bytes((clips / "sub" / "moves.mp4").read_bytes())
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    assert main(["data", "check", str(tmp_path), *FEW]) == 0
    said = capsys.readouterr()
    assert "a.txt: not a text file in UTF-8; save it as UTF-8" in said.err
    assert said.out.splitlines()[0] == "1 of 2 videos would be used"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nowhere"], "give a folder of videos, or a .csv or .jsonl that lists them"),
        (["{clips}", "--write", "keep.txt"], "give a name that ends in .csv"),
        (["{clips}", "--size", "big"], "give width and height in pixels"),
        (["{clips}", *FEW, "--min-motion", "1000", "--write", "{clips}/none.csv"], "none of 4 videos is kept"),
    ],
)
def test_wrong_arguments(clips, capsys, arguments, line):
    assert main(["data", "check", *(argument.format(clips=clips) for argument in arguments)]) == 2
    assert line in capsys.readouterr().err.splitlines()[-1]
