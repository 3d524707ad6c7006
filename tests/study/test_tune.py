"""Finding a start: the result on made-up videos, and the real thing on a tiny pipeline."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import unleak
from unleak.core.process import RF, VE, VP
from unleak.core.start import Start
from unleak.measure.motion import ESTIMATOR
from unleak.study.tune import find as module
from unleak.study.tune.bisection import FINE
from unleak.study.tune.find import find_start, steps_of_preview
from unleak.study.tune.result import Fidelity, TargetMotion

pytestmark = pytest.mark.filterwarnings("ignore:all [0-9]+ steps are run")  # so few steps, as from a distilled model

CALL = {"height": 16, "width": 32, "num_frames": 3, "num_inference_steps": 4}


def texture(side=400):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC))


PHOTO = Image.fromarray(texture()[100:164, 100:164])
PLAN = {"init": "standard", "mode": "rescale", "strategies": ()}


def pan(speed, *, darker=0):
    """Four frames of 64x64 that move by `speed` px a frame; the first is PHOTO, or that darker by so many levels."""
    big, frames = texture(), []
    for k in range(4):
        at = round(100 - speed * k)
        frames.append(big[100:164, at : at + 64].astype(float))
    return (np.stack(frames) - darker).clip(0, 255).astype(np.uint8)


def speeds(text):
    """The speeds that a sentence tells."""
    return [float(one) for one in re.findall(r"([\d.]+)px/", text)]


def search(pipe, response, **changes):
    """`find_start` with videos of `response`(sigma) -> (px/frame, darker); and the sigmas that were asked for."""
    asked = []

    def make(start):
        asked.append(start)
        sigma = start.resolve(module.process_of(pipe.scheduler)).edm_sigma
        speed, darker = response(sigma)
        return pan(speed, darker=darker), (sigma, 0.0)

    settings = {
        "target": TargetMotion.parse("2px/frame"),
        "fidelity": Fidelity.parse("plain-3dB"),
        "lowest": Start.sigma(5),
        "budget": 6,
        "fps": 8.0,
        "steps": 9,
        "plan": PLAN,
    }
    return find_start(pipe, PHOTO, make, **settings | changes), asked


# The choice


def test_the_highest_start_that_moves_is_found_and_explained(tiny_svd):
    found, asked = search(tiny_svd, lambda sigma: (3 if sigma < 60 else 0, 8))
    assert [str(one) for one in asked[:2]] == ["1.0T", "sigma=5"]
    assert len(asked) == 6
    assert found.reached
    assert 60 / 1.2 <= found.start.resolve(module.process_of(tiny_svd.scheduler)).edm_sigma < 60
    assert "the highest start tried that reaches 2px/frame; plain moves" in found.reason
    assert speeds(found.reason) == pytest.approx([3, 2, 0], rel=0.05, abs=0.05)
    assert "dB against the photo, where the bound is" in found.reason
    assert Start.parse(str(found.start)) == found.start
    rows = repr(found).splitlines()
    assert rows[1].split() == ["start", "sigma", "log-SNR", "px/frame", "camera", "first", "frame", "dB"]
    assert rows[2].split()[0] == "1.0T"
    assert rows[2].endswith("too still")
    assert sum(row.endswith("chosen") for row in rows) == 1


def test_a_plain_pipeline_that_moves_stays_plain(tiny_svd):
    found, asked = search(tiny_svd, lambda sigma: (3, 8))
    assert (len(asked), str(found.start), found.reached) == (1, "1.0T", True)
    assert found.reason.startswith("the plain pipeline already moves")
    assert speeds(found.reason) == pytest.approx([3, 2], rel=0.05)


def test_out_of_reach_is_said_with_the_best_there_is(tiny_svd):
    found, _ = search(tiny_svd, lambda sigma: (1 if sigma < 60 else 0, 8))
    assert not found.reached
    assert found.reason.startswith("2px/frame is out of reach: no start down to sigma=5 moves that fast; ")
    assert "moves most within the bound, " in found.reason
    assert speeds(found.reason) == pytest.approx([2, 1], rel=0.05)


def test_motion_at_the_price_of_the_photo_does_not_count(tiny_svd):
    found, _ = search(tiny_svd, lambda sigma: (3, 40) if sigma < 60 else (1 if sigma < 300 else 0, 8))
    assert not found.reached
    assert found.start.resolve(module.process_of(tiny_svd.scheduler)).edm_sigma >= 60
    assert "but its first frame has" in found.reason
    assert "below the bound" in repr(found)


def test_a_bound_that_nothing_meets_is_said(tiny_svd):
    found, _ = search(tiny_svd, lambda sigma: (3, 8), fidelity=Fidelity.parse("50dB"))
    assert not found.reached
    assert "no start tried is within the bound of 50.0 dB (50dB): 1.0T comes nearest" in found.reason


def test_speeds_are_of_the_video_as_it_is_played(tiny_svd):
    found, _ = search(tiny_svd, lambda sigma: (3 if sigma < 60 else 0, 8), target=TargetMotion.parse("20px/s"))
    assert found.goal.motion == 2.5
    assert speeds(found.reason) == pytest.approx([24, 20, 0], rel=0.05, abs=0.4)
    default, _ = search(tiny_svd, lambda sigma: (3, 8), target=None)
    assert str(default.target) == "2.6px/s"  # 4 % of 64 px a second


def test_a_full_video_that_falls_short_of_its_preview_is_said(tiny_svd):
    found, _ = search(tiny_svd, lambda sigma: (3 if sigma < 60 else 0, 8))
    level = found.chosen.run.start
    check = found.completed(pan(3, darker=8), level, None).check
    assert re.fullmatch(r"with all its steps it moves [\d.]+px/frame, first frame [\d.]+ dB", check)
    assert "less than the preview said" in found.completed(pan(1, darker=8), level, None).check
    assert "below the bound, unlike the preview" in found.completed(pan(3, darker=40), level, None).check


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 2}, "budget 2: give 3 previews or more"),
        ({"lowest": Start.sigma(1e5)}, "outside this VE process"),
        ({"lowest": Start.fraction(1)}, "the lowest start 1.0T is the plain one"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_made(tiny_svd, changes, message):
    with pytest.raises(ValueError, match=message):
        search(tiny_svd, pytest.fail, **changes)


def test_a_squashed_photo_is_compared_squashed_and_a_cropped_one_cropped(tiny_svd):
    wide = Image.fromarray(texture()[100:164, 100:228])
    squashed, cropped = wide.resize((64, 64), Image.Resampling.LANCZOS), wide.crop((32, 0, 96, 64))
    for shown in (squashed, cropped):
        frames = np.repeat(np.asarray(shown)[None], 4, 0)
        assert np.array_equal(module.as_shown(wide, frames), np.asarray(shown))


BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
PROCESSES = {
    "vp": (VP.from_betas(BETAS), "timestep"),
    "vp-zero-snr": (VP.from_betas(BETAS, zero_terminal_snr=True), "timestep"),
    "ve": (VE(0.002, 700), "sigma"),
    "rf": (RF(), "sigma"),
}


@pytest.mark.parametrize(("process", "unit"), PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("log_snr", [-9.2, -5.3, -4.6, 1.0])
def test_a_start_is_named_in_the_usual_unit_near_the_level_and_can_be_given_again(process, unit, log_snr):
    if log_snr < process.noisiest.log_snr:
        pytest.skip("no such level")
    start = module._named(log_snr, process)
    assert start.unit == unit
    assert start.resolve(process).log_snr == pytest.approx(log_snr, abs=FINE)
    assert Start.parse(str(start)) == start
    assert len(str(start)) <= len("sigma=0.9999")


# What is written


def test_the_page_has_every_video_and_the_reason(tiny_svd, tmp_path):
    found, _ = search(tiny_svd, lambda sigma: (3 if sigma < 60 else 0, 8), budget=3)
    found = found.completed(pan(3, darker=8), found.chosen.run.start, (5.0, 0.0))
    found = module.replace(found, about={"seed": 4, "title": "a <b>"})
    page = found.save(tmp_path / "t")
    text = page.read_text(encoding="utf-8")
    assert text.count("<video ") == 4
    assert "<h1>a &lt;b&gt;</h1>" in text
    assert "the highest start tried that reaches 2px/frame" in text
    assert re.search(r"2[345][\d.]* px/s, first frame [\d.]+ dB", text)
    record = json.loads((tmp_path / "t/tune.json").read_text())
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == record["files"]
    videos = [name for name in record["files"] if name.endswith(".mp4")]
    assert videos == ["chosen.mp4", "start-1.0T.mp4", "start-sigma=5.mp4", "start-sigma=59.2.mp4"]
    assert record["chosen"]["start"] == "sigma=59.2"
    assert record["chosen"]["check"].startswith("with all its steps")
    asked = [run["start"]["asked"] for run in record["runs"]]
    assert asked == ["1.0T", "sigma=59.2", "sigma=5", "sigma=59.2 in full"]
    assert record["runs"][1]["speed"]["px_per_second"] == pytest.approx(24, rel=0.1)
    assert ESTIMATOR in record["metric"]["motion"]
    with pytest.raises(ValueError, match="exists; give --overwrite"):
        found.save(tmp_path / "t")
    found.save(tmp_path / "t", overwrite=True)


# Words


@pytest.mark.parametrize(
    ("text", "fps", "per_frame"),
    [("8px/s", 4, 2), ("8 px/s", 16, 0.5), (".5px/frame", 7, 0.5)],
)
def test_a_target_is_read_in_both_units(text, fps, per_frame):
    assert TargetMotion.parse(text).per_frame(fps) == per_frame


@pytest.mark.parametrize("text", ["", "fast", "8", "8px", "-8px/s", "0px/s", "nanpx/s", "1e4px/s", "8px/s/s", "8km/h"])
def test_what_is_no_target_is_refused(text):
    with pytest.raises(ValueError, match="target motion"):
        TargetMotion.parse(text)


def test_a_bound_is_absolute_or_relative_to_plain():
    assert Fidelity.parse("22dB").least(30) == 22
    assert Fidelity.parse("plain - 2.5 dB").least(30) == 27.5
    assert str(Fidelity.parse("plain-3dB")) == "plain-3dB"
    for text in ("", "22", "plain", "plain+3dB", "-3dB", "90dB"):
        with pytest.raises(ValueError, match=f"fidelity '{text}'".replace("+", r"\+")):
            Fidelity.parse(text)


@pytest.mark.parametrize(("steps", "preview"), [(25, 9), (50, 17), (9, 9), (4, 4), (30, 10)])
def test_previews_have_a_third_of_the_steps(steps, preview):
    assert steps_of_preview(steps) == preview


def test_auto_says_what_to_do(tiny_svd):
    with pytest.raises(ValueError, match=r"unleak.tune\(pipe, image=photo\).start"):
        unleak.apply(tiny_svd, start="auto")


# The library's door


def test_a_preview_is_the_video_of_its_start_and_the_pipeline_is_left_as_it_was(tiny_svd):
    plain = type(tiny_svd)
    image = PHOTO.resize((32, 16))
    done = unleak.tune(
        tiny_svd, image=image, target_motion="1000px/s", budget=4, lowest="sigma=40", seed=3, preview_steps=2, **CALL
    )
    assert type(tiny_svd) is plain
    assert [str(one.start) for one in done.previews][:2] == ["1.0T", "sigma=40"]
    assert len(done.previews) <= 4
    for one in done.previews:
        with unleak.applied(tiny_svd, start=str(one.start)):
            frames = tiny_svd(
                image, **CALL | {"num_inference_steps": 2}, generator=torch.Generator().manual_seed(3), output_type="np"
            ).frames[0]
        assert np.array_equal(one.run.frames, (frames * 255).round().astype(np.uint8))
    assert done.about["preview_steps"] == 2
    assert done.about["settings"]["num_inference_steps"] == 4
    assert "target_motion='1000px/s', budget=4, fidelity='plain-3dB', lowest='sigma=40'" in done.about["reproduce"]
    again = unleak.tune(
        tiny_svd, image=image, target_motion="1000px/s", budget=4, lowest="sigma=40", seed=3, preview_steps=2, **CALL
    )
    assert json.dumps(again.record) == json.dumps(done.record)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image": [PHOTO]}, "give one PIL image, not list"),
        ({"target_motion": "8"}, "8px/s or 8px/frame"),
        ({"fidelity": "much"}, "least PSNR"),
        ({"lowest": "0.9"}, "ambiguous"),
        ({"lowest": "sigma=1e5"}, "outside this VE process"),
        ({"budget": 1}, "3 previews or more"),
        ({"generator": torch.Generator()}, "see seed"),
        ({"promt": "a dog"}, "takes no promt"),
    ],
)
def test_bad_input_is_refused_before_anything_is_run(tiny_svd, monkeypatch, given, message):
    monkeypatch.setattr(module.FixedCall, "frames", pytest.fail)
    with pytest.raises(ValueError, match=message):
        unleak.tune(tiny_svd, **{"image": PHOTO, **CALL, **given})


def test_a_family_without_presets_asks_for_the_lowest_start(tiny_svd, monkeypatch):
    monkeypatch.setattr(module, "seam_of", lambda pipe: SimpleNamespace(motion={}))
    with pytest.raises(ValueError, match="give the lowest start allowed"):
        unleak.tune(tiny_svd, image=PHOTO, **CALL)
