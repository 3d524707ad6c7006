import pytest


@pytest.mark.parametrize("name", ["generate", "try", "sweep", "tune", "compare"])
def test_more_frames_than_the_model_is_made_for_are_told_once(unleak, photo, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    more, fewer = (unleak(name, photo, "--model", "nano", "--num-frames", frames, "--dry-run") for frames in (40, 3))
    assert (more.status, fewer.status) == (0, 0), more.err + fewer.err
    assert more.err.count("40 frames: nano is made for") == 1
    assert "is made for" not in fewer.err
