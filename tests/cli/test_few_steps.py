"""Every study of a rectified flow in four steps: starts keep to the levels that the plain schedule has."""

import json

import pytest

STARTS = "1.00T,sigma=0.96"
SMALL = ("--size", "32x16", "--num-frames", 5, "--steps", 4, "--set", "max_sequence_length=8", "--prompt", "a dog")
DIAGNOSIS = ("--size", "32x16", "--num-frames", 5, "--steps", 4, "--clips", 1, "--seeds", 1, "--start", "sigma=0.96")


def test_models_show_says_what_each_preset_is(unleak):
    shown = unleak("models", "show", "wan2.2-i2v").out
    assert "motion low:   start logsnr=-7.89; in few steps Compress(crf=33), the first that the model allows" in shown
    assert "in few steps ExpertGuidance(high=3.5, low=1.0) and MotionAmplitude(amount=1.15), or Motion" in shown
    shown = unleak("models", "show", "svd").out
    assert "motion high:  start sigma=40 and guidance-interval=..sigma=10\n" in shown
    assert "motion high:  start sigma=5\n" in unleak("models", "show", "nano").out


@pytest.fixture(params=["sweep", "compare", "tune", "try", "generate auto"])
def study(request):
    return {
        "sweep": ("sweep", "photo.png", "--start", STARTS, *SMALL),
        "compare": ("compare", "photo.png", "--start", STARTS, *SMALL),
        "tune": ("tune", "photo.png", "--budget", 3, *SMALL),
        "try": ("try", "photo.png", "--budget", 2, *SMALL),
        "generate auto": ("generate", "photo.png", "--start", "auto", "--budget", 3, *SMALL),
    }[request.param]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wan22", "ltx"])
def test_a_study_in_four_steps(unleak, pipeline_folder, photo, tmp_path, monkeypatch, study, name):
    monkeypatch.chdir(tmp_path)
    size = ("--size", "32x32", "--num-frames", 9) if name == "ltx" else ()
    result = unleak(*study, *size, "--model", pipeline_folder(name), "--json", "--quiet")
    expected = {0, 1} if study[0] == "try" else {0}  # 1: none of the videos of random weights is worth keeping
    assert result.status in expected, result.err
    assert json.loads(result.out)


@pytest.mark.slow
def test_a_diagnosis_in_four_steps_restarts_from_a_level_of_the_schedule(
    unleak, pipeline_folder, photo, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    asked = ("diagnose", "--model", pipeline_folder("wan22"), "--photos", photo, "--prompt", "a dog", *DIAGNOSIS)
    result = unleak(*asked, "--set", "max_sequence_length=8", "--out", "found", "--quiet")
    assert result.status == 0, result.err
    record = json.loads((tmp_path / "found/diagnosis.json").read_text())
    assert "restart" in {row["test"] for row in record["rows"]}
