"""Pages from plain records, without a model: what is escaped, what is left out, what the plots say."""

import re

import pytest

from unleak.report import compare_page, evaluate_page, sweep_page
from unleak.report.pages import render, without_paths
from unleak.report.plots import Line, Mean, against_start, kept_motion, means

HOSTILE = "<script>alert(1)</script> $x_1$"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("unleak sweep /home/anna/photos/a.jpg --out /tmp/x", "unleak sweep a.jpg --out x"),
        ("file /data/my.mp4: broken", "file my.mp4: broken"),
        ("'/home/an na/a.jpg'", "'an na/a.jpg'"),
        (r"C:\Users\anna\a.jpg", "a.jpg"),
        ("org/name, photos/a.jpg, 1/2, 8px/s", "org/name, photos/a.jpg, 1/2, 8px/s"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("--lora=/models/style.safetensors:0.5", "--lora=style.safetensors:0.5"),
    ],
)
def test_no_path_of_this_machine_is_shown(text, shown):
    assert without_paths(text) == shown
    assert without_paths({"a": [text]}) == {"a": [shown]}


def run(start, score, name="a"):
    return {
        "start": {
            "asked": start, "timestep": 1, "fraction": 1 - score / 100, "sigma": None, "log_snr": -3.0, "edm_sigma": 1,
            "flow_sigma": 1, "process": "VE",
        },
        "sigmas": [2, 1], "motion": {"score": score, "per_pair": [score / 2] * 2},
        "camera": {"pan": None, "explained": 0, "per_pair": [None, None]}, "video": f"{name}.mp4",
    }  # fmt: skip


SWEEP = {
    "title": HOSTILE,
    "seed": 3,
    "video": {"num_frames": 3, "width": 32, "height": 16, "fps": 8.0},
    "metric": {"motion": "flow", "camera": "pan"},
    "photo": {"file": "/home/anna/photo.jpg", "sha256": "ab" * 32},
    "reproduce": "unleak sweep /home/anna/photo.jpg",
    "versions": {"torch": "2"},
    "runs": [run("1.0T", 3.0), run("0.9T", 12.0)],
}


def test_a_sweep():
    text = sweep_page.page(SWEEP, [b"one", b"two"])
    check_whole(text)
    assert "The motion score runs from 3.0 at 1.0T to 12.0 at 0.9T" in text
    assert "/home/anna" not in text
    assert "photo.jpg" in text
    assert "abab" not in text  # hashes stand in the JSON file
    assert text.count("<details") == 5  # units, numbers, settings, command, versions
    assert text.count("<video ") == 2


def test_several_videos_of_one_start_are_no_line():
    runs = [run("sigma=20", 3.0), run("sigma=20", 3.0) | {"label": "sigma=20, seed 1", "told": "best", "best": True}]
    text = sweep_page.page(SWEEP | {"runs": runs}, [b"one", b"two"])
    assert text.count('<figure class="card best"') == 1
    assert ">sigma=20, seed 1</div>" in text.replace('<span class="dot"></span>', ">")
    joined = str(against_start([1.0, 0.9], ["a", "b"], [1.0, 2.0], ["#112233"] * 2, ".1f"))
    apart = str(against_start([0.9, 0.9], ["a", "a"], [1.0, 2.0], ["#112233"] * 2, ".1f", joined=False))
    assert joined.count("<path") == apart.count("<path") + 1


def mean(value, low=None, high=None):
    return {"value": value, "low": low, "high": high, "groups": 4}


def test_a_comparison():
    cases = [
        {"label": "plain", "motion_score": mean(10, 9, 11), "motion_score_more": None, "flicker": None,
         "flicker_more": None, "start": "1.0T"},
        {"label": HOSTILE, "motion_score": mean(30, 20, 40), "motion_score_more": mean(20, 10, 30),
         "flicker": mean(1.0), "flicker_more": None, "start": "0.9T"},
    ]  # fmt: skip
    videos = [
        {"case": k, "photo": 0, "seed": 7, "values": {"motion_score": 10.0 + 20 * k, "first_frame_psnr": 30.0}}
        | {name: run("1.0T", 10.0)[name] for name in ("motion", "camera")}
        for k in range(2)
    ]
    record = {
        "title": "a", "cases": cases, "videos": videos, "photos": [{"file": "/home/anna/a.jpg"}] * 4,
        "video": SWEEP["video"], "metrics": {"motion_score": "", "flicker": "", "estimator": "DIS"},
    }  # fmt: skip
    text = compare_page.page(record, {0: b"one", 1: b"two"})
    check_whole(text)
    assert "a.jpg, seed 7" in text
    assert "/home/anna" not in text
    assert "with a motion score of 30.0; plain has 10.0" in text
    assert "30.00 (20.00 to 40.00)" in text
    assert "+20.00 (+10.00 to +30.00)" in text
    assert "with 95 % intervals" in text


def test_an_evaluation():
    rows = [
        {"file": f"/home/anna/{k}.mp4", "reference": k == 2, "motion_score": 10.0 + k, "features": {}} for k in range(3)
    ]
    heading = {"label": "motion score", "unit": "px", "by": "DIS"}
    record = {
        "summary": {"motion_score": mean(10.5), "motion_score_reference": mean(12.0)},
        "headings": {"motion_score": heading, "motion_score_reference": heading},
        "rows": rows, "failed": [f"/home/anna/{HOSTILE}.mp4: broken"] * 7, "references": 1,
    }  # fmt: skip
    text = evaluate_page.page(record, ["motion_score"])
    check_whole(text)
    assert "/home/anna" not in text
    assert "Evaluation of 2 videos" in text
    assert "7 could not be measured" in text
    assert text.count(": broken") == 5
    assert "the mean motion score is 10.5; the 1 real videos have 12.0" in text


def check_whole(text):
    """A page that needs nothing from outside, and shows names as text."""
    assert text.lstrip().startswith("<!doctype html>")
    assert "<script>alert" not in text
    assert text.count("<script>") <= 1
    assert "{{" not in text
    bare = re.sub(r"base64,[^\"]+", "", text)
    assert not re.search(r"https?:|//[\w.-]+\.\w|@import|url\(", bare)
    assert all(link.startswith(("data:", "#")) for link in re.findall(r'(?:src|href)="([^"]*)"', text))
    assert "default-src 'none'" in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_a_dollar_in_a_label_is_a_dollar():
    svg = str(means([Mean("$x_1$ <b>", "#112233", 1.0, 0.5, 1.5), Mean("b", "#445566", -2.0, None, None)]))
    assert "$x_1$ &lt;b&gt;" in svg
    assert "var(--ink)" in svg


def test_labels_that_would_overlap_are_left_out():
    fractions = [1 - 0.002 * k for k in range(30)]
    svg = str(against_start(fractions, [f"{one:.3f}T" for one in fractions], fractions, ["#112233"] * 30, ".1f"))
    assert 3 <= len(re.findall(r">0\.9\d\dT</text>", svg)) <= 10
    assert svg.count('xlink:href="#start-') == 30


def test_a_missing_value_is_no_point():
    svg = str(against_start([1.0, 0.9], ["1.0T", "0.9T"], [None, 2.0], ["#112233"] * 2, ".1f"))
    assert re.findall(r"#start-(\d)", svg) == ["1"]


def test_the_curve_as_a_picture(tmp_path):
    from PIL import Image

    lines = [Line("a", "#112233", [(0.5, 0.4, 0.6), None]), Line("b", "#445566", [None, None], dashed=True)]
    assert kept_motion(["1.0T", "0.9T"], lines, tmp_path / "a.png") is None
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 600
        assert picture.convert("RGB").getpixel((1, 1)) == (255, 255, 255)
    assert "1.0T" in str(kept_motion(["1.0T", "0.9T"], lines))


def test_a_template_that_lacks_a_value_fails():
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError):
        render("evaluate.html", title="a", lead="b")
