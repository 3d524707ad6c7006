"""What the web page asks for, without the web."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from unleak.data.image import MediaError
from unleak.data.video import read_video
from unleak.ui import view
from unleak.ui.studio import Studio, Wish

PHOTO = Path(__file__).parents[2] / "examples/photo.jpg"


@pytest.fixture(scope="module")
def studio():
    return Studio(["nano", "nano-timenoise"], device="cpu")


@pytest.fixture(scope="module")
def pair(studio):
    told = []
    wish = Wish("nano", "own", start="sigma=20", init="analytic", seed=3, steps=3)
    return studio.animate(PHOTO, wish, report=lambda share, text: told.append((share, text))), told


def test_both_videos_are_measured_saved_and_told(pair, tmp_path):
    made, told = pair
    assert (made.plain.start["fraction"], made.fixed.start["sigma"]) == (1, pytest.approx(20))
    files = made.save(tmp_path)
    for run, file in zip((made.plain, made.fixed), files[:2], strict=True):
        clip = read_video(file)
        assert (clip.frames.shape, clip.fps) == (run.frames.shape, made.fps)
    record = json.loads(files[2].read_text())
    assert record["seed"] == 3
    assert record["fixed"]["settings"]["init"] == "analytic"
    assert record["plain"]["motion"]["score"] == made.plain.motion.value
    assert str(PHOTO.parent) not in files[2].read_text()
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert told[-1] == (1, "fixed video, step 3 of 3")


def test_both_start_from_the_same_noise(studio):
    made = studio.animate(PHOTO, Wish("nano", "own", start="1.0T", seed=3, steps=1), report=lambda share, text: None)
    assert np.array_equal(made.plain.frames, made.fixed.frames)


def test_the_card_has_video_score_and_level_in_all_units(pair, tmp_path):
    made, _ = pair
    text = view.pair(made.plain, made.fixed, made.save(tmp_path)[:2])
    assert text.count('src="data:video/mp4;base64,') == 2
    assert f"<b>{made.fixed.motion.value:.1f}</b> motion score" in text
    for name in ("timestep", "of T", "sigma", "log-SNR", "EDM sigma", "flow sigma"):
        assert text.count(f"<dt>{name}</dt>") == 2
    assert "<dt>sigma</dt><dd>20</dd>" in text


def test_a_sweep_is_the_page_of_the_command(studio, tmp_path):
    wish = Wish("nano", seed=3, steps=1)
    page = studio.sweep(PHOTO, wish, "1.0T, sigma=5", tmp_path / "sweep", report=lambda share, text: None)
    text = page.read_text(encoding="utf-8")
    assert text.count("<video ") == 2
    framed = view.framed(text)
    assert 'sandbox="allow-scripts"' in framed
    assert framed.count("<iframe") == framed.count('srcdoc="') == 1
    assert not re.search(r'srcdoc="[^"]*<', framed)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Wish("svd"), "'svd' is not offered here"),
        (Wish("../nano"), "not offered here"),
        (Wish("nano", "wild"), "motion 'wild' is unknown"),
        (Wish("nano", "own"), "the start is empty"),
        (Wish("nano", "own", start="0.94"), "ambiguous"),
        (Wish("nano", "own", start="sigma=1e5"), "outside"),
        (Wish("nano", "own", start="sigma=5", init="/etc/passwd"), "init '/etc/passwd' is unknown"),
        (Wish("nano", seed=-1), "seed from 0"),
        (Wish("nano", steps=10_000), "1 to 100 steps"),
        (Wish("nano", prompt="x" * 3000), "3000 characters"),
        (Wish("nano", prompt="a boat"), "prompt"),
    ],
)
def test_what_cannot_be_had_is_told_before_anything_is_loaded(studio, monkeypatch, wish, message):
    monkeypatch.setattr(studio, "_loaded", None)
    monkeypatch.setattr("unleak.ui.studio.load", None)
    with pytest.raises(ValueError, match=re.escape(message)):
        studio.animate(PHOTO, wish, report=lambda share, text: None)


def test_too_many_starts_and_no_photo(studio, tmp_path):
    with pytest.raises(ValueError, match="9 starts: give 8 at most"):
        studio.sweep(PHOTO, Wish("nano"), ",".join(f"sigma={k}" for k in range(1, 10)), tmp_path, report=print)
    broken = tmp_path / "photo.jpg"
    broken.write_bytes(b"<svg/>")
    with pytest.raises(MediaError, match="not an image"):
        studio.animate(broken, Wish("nano"), report=print)


@pytest.mark.parametrize("name", ["stable-diffusion-v1-5", "owner/name", "/etc"])
def test_only_listed_models_that_animate_a_photo_are_offered(name):
    with pytest.raises(ValueError, match=r"is not listed|takes more than a photo|no seam|image"):
        Studio([name])


def test_what_a_visitor_wrote_is_shown_as_text():
    assert "<b>" not in view.refused("<b>") + view.level({"text": "<b>"})
