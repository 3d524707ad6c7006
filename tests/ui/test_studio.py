"""What the web page asks for, without the web."""

import json
import re
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path

import gradio as gr
import numpy as np
import pytest

from unleak.attach.strategies import fixes
from unleak.attach.strategies.registry import LevelText, parse_fix
from unleak.data.image import MediaError
from unleak.data.video import read_video
from unleak.measure.registry import metric_names, metrics
from unleak.study.tune.find import Search
from unleak.ui import studio as studio_module
from unleak.ui import view
from unleak.ui.fields import fix_fields, wish_of
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
    assert (made.plain.run.start["fraction"], made.fixed.run.start["sigma"]) == (1, pytest.approx(20))
    files = made.save(tmp_path)
    for run, file in zip((made.plain.run, made.fixed.run), files[:2], strict=True):
        clip = read_video(file)
        assert (clip.frames.shape, clip.fps) == (run.frames.shape, made.fps)
    record = json.loads(files[2].read_text())
    assert record["seed"] == 3
    assert record["fixed"]["settings"]["init"] == "analytic"
    assert record["plain"]["motion"]["score"] == made.plain.run.motion.value
    assert str(PHOTO.parent) not in files[2].read_text()
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert told[-1] == (1, "fixed video, step 3 of 3")


def test_both_start_from_the_same_noise(studio):
    made = studio.animate(PHOTO, Wish("nano", "own", start="1.0T", seed=3, steps=1), report=lambda share, text: None)
    assert np.array_equal(made.plain.run.frames, made.fixed.run.frames)


def test_the_card_has_video_score_and_level_in_all_units(pair, tmp_path):
    made, _ = pair
    text = view.pair(made.plain, made.fixed, made.save(tmp_path)[:2])
    assert text.count('src="data:video/mp4;base64,') == 2
    assert f"<b>{made.fixed.run.motion.value:.1f}</b> motion score" in text
    for name in ("timestep", "of T", "sigma", "log-SNR", "EDM sigma", "flow sigma"):
        assert text.count(f"<dt>{name}</dt>") == 2
    assert "<dt>sigma</dt><dd>20</dd>" in text


def test_every_metric_of_the_registry_is_told_and_recorded(pair, tmp_path):
    made, _ = pair
    text = view.pair(made.plain, made.fixed, made.save(tmp_path)[:2])
    wanted = [one for name, one in metrics().items() if name in metric_names("compare")]
    assert len(wanted) > 3
    for one in wanted:
        assert f'<th scope="row">{escape(one.heading)}</th>' in text
        assert f"<td>{made.fixed.values[one.name]:.3g}</td>" in text
        assert made.record["plain"]["values"][one.name] == made.plain.values[one.name]


def test_what_is_warned_of_stands_beside_the_videos(pair, tmp_path):
    made, _ = pair
    assert any("3 steps" in text for text in made.cautions)
    text = view.pair(made.plain, made.fixed, made.save(tmp_path)[:2], cautions=made.cautions)
    assert all(f'<p class="unleak-note" role="status">{escape(one)}</p>' in text for one in made.cautions)


def test_only_what_moved_is_called_fixed(pair, tmp_path):
    made, _ = pair
    files = made.save(tmp_path)[:2]
    assert "<b>Fixed</b>" in view.pair(made.plain, made.fixed, files)
    still = view.pair(made.plain, made.fixed, files, still=True)
    assert "<b>With the fix</b>" in still
    assert "Fixed" not in still


def test_other_fixes_act_on_the_fixed_video_alone_and_are_recorded(studio):
    still = Wish("nano", "own", start="1.0T", seed=3, steps=1)
    other = replace(still, fixes=("low-pass=0.25:0.5", "condition-noise=0.3", "guidance-interval=..sigma=10 "))
    made = studio.animate(PHOTO, other, report=lambda share, text: None)
    bare = studio.animate(PHOTO, still, report=lambda share, text: None)
    assert np.array_equal(made.plain.run.frames, bare.plain.run.frames)
    assert not np.array_equal(made.fixed.run.frames, bare.fixed.run.frames)
    assert made.record["plain"]["settings"]["strategies"] == []
    told = made.record["fixed"]["settings"]["strategies"]
    assert [one.partition("(")[0] for one in told] == ["LowPass", "ConditionNoise", "GuidanceInterval"]


def test_a_sweep_is_the_page_of_the_command(studio, tmp_path):
    wish = Wish("nano", seed=3, steps=1)
    page, cautions = studio.sweep(PHOTO, wish, "1.0T, sigma=5", tmp_path / "sweep", report=lambda share, text: None)
    assert any("all 1 steps are run" in one for one in cautions)
    assert view.notes(cautions).count('<p class="unleak-note"') == len(cautions)
    text = page.read_text(encoding="utf-8")
    assert text.count("<video ") == 2
    framed = view.framed(text)
    assert 'sandbox="allow-scripts"' in framed
    assert framed.count("<iframe") == framed.count('srcdoc="') == 1
    assert not re.search(r'srcdoc="[^"]*<', framed)


def test_what_is_warned_of_while_trying_stands_above_its_page(studio, tmp_path, monkeypatch):
    monkeypatch.setattr(studio_module, "TRIES", 2)
    found, page, cautions = studio.attempt(
        PHOTO, Wish("nano", seed=3, steps=1), tmp_path, report=lambda share, text: None
    )
    assert any("all 1 steps are run" in one for one in cautions)
    shown = view.notes(cautions) + view.attempt(found, page.read_text(encoding="utf-8"))
    assert all(f'<p class="unleak-note" role="status">{escape(one)}</p>' in shown for one in cautions)


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
        (Wish("nano", fixes=("low-pass=2",)), "low-pass=2"),
        (Wish("nano", fixes=("low-pass",)), "no published values for StableVideoDiffusionPipeline"),
        (Wish("nano", fixes=("condition-noise=<b>",)), "is not a number"),
        (Wish("nano", fixes=("guidance-interval=sigma=1e6..sigma=2e6",)), "outside"),
    ],
)
def test_what_cannot_be_had_is_told_before_anything_is_loaded(studio, monkeypatch, wish, message):
    monkeypatch.setattr(studio, "_loaded", None)
    monkeypatch.setattr("unleak.zoo.hub.load", None)
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


def diagnose(studio, folder, *, clips=(), photo=None, starts="0.50T", count=1, seeds=1, model="nano"):
    return studio.diagnose(
        list(clips),
        photo,
        Wish(model, steps=1),
        starts=starts,
        count=count,
        seeds=seeds,
        folder=folder,
        report=lambda share, text: None,
    )


@pytest.mark.slow
def test_a_model_is_diagnosed_on_clips_of_known_motion_made_of_the_photo(studio, tmp_path):
    done, saved = diagnose(studio, tmp_path, photo=PHOTO)
    assert sorted(path.name for path in saved.iterdir()) == [
        "curve.csv",
        "diagnosis.json",
        "diagnosis.png",
        "index.html",
    ]
    record = json.loads((saved / "diagnosis.json").read_text())
    assert {row["who"] for row in record["rows"]} == {"", "image", "no image", "oracle"}
    assert record["known_motion"] is True
    assert str(PHOTO.parent) not in json.dumps(record)
    assert record["model"]["source"] == "weights"
    text = view.diagnosis(done, saved)
    assert all(escape(sentence).partition("`")[0] in text for sentence in done.verdict.sentences)
    assert "`" not in text
    assert 'src="data:image/png;base64,' in text
    assert '<li class="unleak-suspect"><b>few steps</b> 1 steps' in text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give 1 to 16 clips"),
        ({"photo": PHOTO, "count": 17}, "give 1 to 16 clips"),
        ({"photo": PHOTO, "seeds": 5}, "1 to 4 noises"),
        ({"photo": PHOTO, "starts": ",".join(f"sigma={k}" for k in range(1, 10))}, "8 starts at most"),
        (
            {"photo": PHOTO, "count": 16, "seeds": 4, "starts": "0.9T,0.8T,0.7T"},
            "these are 1376 videos, and 600 at most",
        ),
        ({"photo": PHOTO, "starts": "0.9T,0.9T"}, "0.9T is given twice"),
        ({"photo": PHOTO, "starts": " "}, "give one start or more"),
        ({"photo": PHOTO, "model": "svd"}, "not offered"),
    ],
)
def test_a_diagnosis_has_limits_that_are_told_before_anything_is_loaded(studio, tmp_path, monkeypatch, given, message):
    monkeypatch.setattr(studio, "_loaded", None)
    monkeypatch.setattr("unleak.zoo.hub.load", None)
    with pytest.raises(ValueError, match=message):
        diagnose(studio, tmp_path, **given)


def test_clips_that_cannot_be_read_are_told_each_and_decoded_elsewhere(studio, tmp_path, monkeypatch):
    monkeypatch.setattr("unleak.data.decode_worker.read_video", None)  # here; its workers import their own
    for name in ("a.mp4", "b.gif"):
        (tmp_path / name).write_bytes(b"#EXTM3U\n/etc/passwd")
    with pytest.raises(ValueError, match=r"a.mp4: a playlist of other files.*b.gif: a playlist"):
        diagnose(studio, tmp_path, clips=[tmp_path / "a.mp4", tmp_path / "b.gif"])


def test_a_start_is_found_as_the_command_does(studio, monkeypatch):
    monkeypatch.setattr(studio_module, "Search", partial(Search, budget=3))
    told = []
    wish = Wish("nano", seed=3, steps=1)
    done, cautions = studio.tune(PHOTO, wish, "500px/s", report=lambda share, text: told.append(share))
    assert any("all 1 steps are run" in one for one in cautions)
    assert [str(one.start) for one in done.previews][:2] == ["1.0T", "sigma=5"]
    assert not done.reached
    assert told == sorted(told)
    text = view.found(done)
    assert text.count("<tr") == 1 + len(done.previews)
    assert text.count('class="unleak-chosen"') == 1
    with pytest.raises(ValueError, match="8px/s or 8px/frame"):
        studio.tune(PHOTO, Wish("nano"), "8", report=print)


@pytest.mark.parametrize("level", [0, 1])
def test_every_fix_can_be_switched_on_with_its_fields_as_they_are(level):
    """A level has no usual value, so one of the two of an interval is given."""
    with gr.Blocks():
        fields = [fix_fields(fix) for fix in fixes()]
    values = []
    for fix, (_, *arguments) in zip(fixes(), fields, strict=True):
        levels = [i for i, one in enumerate(fix.parameters) if isinstance(one, LevelText)]
        given = {levels[level]: "0.9T"} if levels else {}
        values += [True, *(given.get(i, field.value) for i, field in enumerate(arguments))]
    wish = wish_of("nano", "", "", "", "", 0, 1, "", *values)
    for fix, text in zip(fixes(), wish.fixes, strict=True):
        assert type(parse_fix(text)) is fix.load()


def test_an_argument_of_a_few_words_is_chosen_from_a_list():
    with gr.Blocks():
        (fix,) = (one for one in fixes() if one.name == "condition-noise")
        chosen = fix_fields(fix)[-1]
    assert isinstance(chosen, gr.Dropdown)
    assert [value for _, value in chosen.choices] == ["", "strength", "image_cond_noise_scale"]
