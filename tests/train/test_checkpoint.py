from pathlib import Path

import pytest
import torch

from unleak.train import checkpoint
from unleak.train.checkpoint import Checkpoint


def at(step: int) -> Checkpoint:
    weights = {"w": torch.randn(3, 4).T, "b": torch.randn(2)}
    optimizer = {"state": {0: {"step": torch.tensor(float(step)), "exp_avg": torch.randn(3)}}, "param_groups": []}
    return Checkpoint(step, {"lr": 1e-4}, weights, {"w": weights["w"] / 2}, optimizer)


def test_a_checkpoint_reads_back_and_only_the_newest_are_kept(tmp_path):
    for step in (5, 10, 100):
        saved = at(step)
        checkpoint.save(tmp_path, saved, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000010", "step-00000100"]
    loaded = checkpoint.load(checkpoint.latest(tmp_path))
    assert (loaded.step, loaded.recipe) == (100, {"lr": 1e-4})
    assert all(torch.equal(loaded.model[name], saved.model[name]) for name in saved.model)
    assert torch.equal(loaded.ema["w"], saved.ema["w"])
    assert torch.equal(loaded.optimizer["state"][0]["exp_avg"], saved.optimizer["state"][0]["exp_avg"])


@pytest.mark.parametrize("dies_in", ["torch.save", "unleak.train.checkpoint._flush", "pathlib.Path.rename"])
def test_a_death_while_saving_leaves_the_last_whole_one(tmp_path, monkeypatch, dies_in):
    checkpoint.save(tmp_path, at(5), keep=1)
    with monkeypatch.context() as patch:
        patch.setattr(dies_in, lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path, at(10), keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000005"]
    assert checkpoint.load(checkpoint.latest(tmp_path)).step == 5
    (tmp_path / ".partial-step-00000010").mkdir()  # of a run that was killed
    checkpoint.sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000005"]


def test_what_stood_there_survives_a_failure_between_two_renames(tmp_path, monkeypatch):
    rename, final = Path.rename, tmp_path / "final"
    with checkpoint.published(final) as partial:
        (partial / "file").write_text("old")

    def deadly(self, target):
        if self.name == ".partial-final":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", deadly)
    with pytest.raises(OSError, match="final"), checkpoint.published(final) as partial:
        (partial / "file").write_text("new")
    assert [p.name for p in tmp_path.iterdir()] == ["final"]
    monkeypatch.undo()
    final.rename(tmp_path / ".partial-old-final")  # killed there
    with pytest.raises(KeyboardInterrupt), checkpoint.published(final):
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["final"]
    assert (final / "file").read_text() == "old"


def test_publishing_replaces_a_full_folder(tmp_path):
    for text in ("old", "new"):
        with checkpoint.published(tmp_path / "final") as partial:
            (partial / "file").write_text(text)
    assert (tmp_path / "final" / "file").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["final"]
