import runpy
from pathlib import Path

import numpy as np
import pytest

import unleak
from unleak.core.plugins import load_plugins
from unleak.measure import registry
from unleak.measure.motion import DIS, motion_score
from unleak.measure.registry import extend, measured, metric, metric_names, metrics, parse_metrics
from unleak.measure.speed import speed
from unleak.measure.video import Video

TOY = Path(__file__).parents[2] / "examples/extend/metric.py"


@pytest.fixture(autouse=True)
def own_list(monkeypatch):
    """What a test registers is gone after it."""
    metrics()
    monkeypatch.setattr(registry, "_METRICS", dict(registry._METRICS))


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (5, 24, 32, 3), dtype=np.uint8)


def test_every_metric_has_a_name_a_label_and_a_sentence():
    for name, one in metrics().items():
        assert one.name == name
        assert one.label
        assert one.about.endswith((".", ".)"))
        assert set(one.studies) <= {"evaluate", "compare"}


def test_a_metric_is_measured_where_the_video_has_what_it_needs(frames):
    names = metric_names("evaluate")
    bare = measured(Video(frames), names)
    assert "first_frame_psnr" not in bare
    assert "ms_err" not in bare
    assert "prompt_alignment" not in bare
    full = measured(Video(frames, image=frames[0], target_motion=10), names)
    assert full["first_frame_psnr"] == 60
    assert full["ms_err"] == pytest.approx(abs(full["motion_score"] - 10))
    assert full["motion_score"] == motion_score(frames).value


def test_two_frames_have_no_flicker(frames):
    assert measured(Video(frames[:2]), ["flicker"]) == {"flicker": None}


class Counting:
    """An optical flow that counts its calls by the width of the frames."""

    name = "counting"

    def __init__(self):
        self.calls = []
        self.flow = DIS()

    def __call__(self, a, b):
        self.calls.append(a.shape[1])
        return self.flow(a, b)


def test_the_flow_of_a_pair_is_computed_once(frames):
    """At 800x450 for the score and the speed; at the video's own size once forward and once back."""
    flow = Counting()
    video = Video(frames, fps=8, flow=flow)
    measured(video, metrics())
    assert video.motion.speed == pytest.approx(speed(frames))
    assert flow.calls.count(800) == len(frames) - 1
    assert flow.calls.count(32) == 2 * (len(frames) - 1)


def test_the_network_of_features_sees_the_frames_once(frames):
    class Network:
        name, reads, seen = "network", True, []

        def __call__(self, pictures):
            self.seen.append(len(pictures))
            return np.full((len(pictures), 4), 0.5)

        def text(self, prompt):
            return np.full(4, 0.5)

    video = Video(frames, image=frames[0], prompt="a dog", features=Network())
    found = measured(video, metrics())
    assert found["temporal_consistency"] == found["image_alignment"] == found["prompt_alignment"] == 1
    assert Network.seen == [len(frames), 1]  # the frames, and the photo


def test_a_preview_of_tune_computes_its_flow_once(frames, monkeypatch):
    from unleak.core.start import Start
    from unleak.study.tune.result import Preview

    flow = Counting()
    monkeypatch.setattr("unleak.measure.motion.DIS.__call__", lambda self, a, b: flow(a, b))
    flow.flow = lambda a, b: np.zeros((*a.shape[:2], 2))
    Preview.measured(Start.parse("0.9T"), {"asked": "0.9T"}, None, frames, frames[0])
    assert flow.calls.count(800) == len(frames) - 1


def test_a_metric_from_outside_the_package(frames):
    runpy.run_path(str(TOY))
    assert metrics()["loop_gap"].heading == "loop gap (grey levels)"
    assert {"evaluate", "compare"} == {study for study in registry.STUDIES if "loop_gap" in metric_names(study)}
    still = measured(Video(frames[[0, 1, 0]]), ["loop_gap"])
    moving = measured(Video(frames), ["loop_gap"])
    assert still["loop_gap"] == 0
    assert moving["loop_gap"] == pytest.approx(np.sqrt(np.square(frames[-1].astype(float) - frames[0]).mean()))


def test_a_metric_from_an_installed_package(monkeypatch):
    class Plugin:
        name = value = "my_package.plugin"
        load = staticmethod(lambda: runpy.run_path(str(TOY)))

    monkeypatch.setattr("unleak.core.plugins.entry_points", lambda group: [Plugin])
    load_plugins.cache_clear()
    assert "loop_gap" in metrics()
    load_plugins.cache_clear()


def test_a_file_of_metrics_runs_twice_and_a_taken_name_is_refused(tmp_path):
    extend(TOY)
    extend(TOY)
    other = tmp_path / "other.py"
    other.write_text(TOY.read_text().replace("loop_gap", "flicker"))
    with pytest.raises(ValueError, match=r"other.py: cannot be run \(ValueError: metric flicker exists already"):
        extend(other)
    with pytest.raises(ValueError, match="no such file"):
        extend(tmp_path / "none.py")


@pytest.mark.parametrize(
    ("name", "needs", "reason"), [("Loud", (), "small letters"), ("a b", (), "small letters"), ("a", ["x"], "no 'x'")]
)
def test_a_metric_that_cannot_be_registered(name, needs, reason):
    with pytest.raises(ValueError, match=reason):
        metric(name, label="x", needs=needs)


def test_names_in_a_text():
    assert parse_metrics(None, "compare") == metric_names("compare")
    assert parse_metrics("flicker, motion_score,flicker", "compare") == ("flicker", "motion_score")
    for text in ("loud", " , "):
        with pytest.raises(ValueError, match="is unknown; give some of motion_score, ms_err"):
            parse_metrics(text, "compare")


def test_the_public_name():
    assert unleak.metric is metric
