import json
import os
from pathlib import Path

import pytest
import torch

from tests.train.runs import files
from unleak.train import checkpoint


def tensors(step):
    """Of a network with one matrix, transposed in memory, and what AdamW keeps of it."""
    g = torch.Generator().manual_seed(step)
    weight = torch.randn(3, 4, generator=g).T
    return {
        "model/w": weight,
        "ema/w": weight / 2,
        "optimizer/w/step": torch.tensor(float(step)),
        "optimizer/w/exp_avg": torch.randn(4, 3, generator=g),
    }


def save(folder, step, *, keep=9, **changes):
    return checkpoint.save(folder, step, {"lr": 1e-4}, tensors(step) | changes, keep=keep)


def blank(**changes):
    return {name: torch.zeros_like(t) for name, t in tensors(0).items()} | changes


def test_a_checkpoint_reads_back_and_only_the_newest_are_kept(tmp_path):
    for step in (5, 10, 100):
        save(tmp_path, step, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000010", "step-00000100"]
    stored, read = checkpoint.newest(tmp_path), blank()
    assert (stored.step, stored.recipe, stored.scaler) == (100, {"lr": 1e-4}, None)
    checkpoint.compare(stored, read)
    assert not any(t.any() for t in read.values())  # nothing is touched yet
    checkpoint.load(stored, read)
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors(100).items())
    (stored.path / "more.safetensors").write_bytes(next(stored.path.glob("tensors*")).read_bytes())
    with pytest.raises(ValueError, match="parts are missing"):
        checkpoint.read(stored.path)


def test_a_large_network_is_written_in_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_FILE_BYTES", 100)
    path, read = save(tmp_path, 1), blank()
    assert [len(names) for names in files(path).values()] == [3, 1]
    checkpoint.load(checkpoint.newest(tmp_path), read)
    assert torch.equal(read["optimizer/w/exp_avg"], tensors(1)["optimizer/w/exp_avg"])


@pytest.mark.parametrize(
    "dies_in", ["unleak.train.checkpoint.save_file", "unleak.train.checkpoint._flush", "pathlib.Path.rename"]
)
def test_a_death_while_saving_leaves_the_last_whole_one(tmp_path, monkeypatch, dies_in):
    save(tmp_path, 5, keep=1)
    with monkeypatch.context() as patch:
        patch.setattr(dies_in, lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 10, keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000005"]
    assert checkpoint.newest(tmp_path).step == 5
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


GONE = "ema/w"


@pytest.mark.parametrize(
    ("changes", "expected", "line"),
    [
        ({}, {GONE: torch.zeros(4, 2)}, r"tensors-\S+: ema/w has the shape \[4, 3\], the network's has \[4, 2\]"),
        ({}, {"model/b": torch.zeros(2)}, r"step-00000010 has no tensor model/b, which the network has"),
        ({"model/b": torch.zeros(2)}, {}, r"tensors-\S+: model/b is a tensor that the network does not have"),
        (
            {GONE: torch.zeros(4, 3).half()},
            {},
            r"tensors-\S+: ema/w is of torch.float16, the network's is of torch.float32",
        ),
        (
            {"optimizer/w/exp_avg": torch.zeros(1)},
            {},
            r"tensors-\S+: optimizer/w/exp_avg has the shape \[1\], the network's has \[4, 3\]",
        ),
    ],
)  # fmt: skip
def test_what_differs_from_the_network_is_named_and_the_good_one_offered(tmp_path, changes, expected, line):
    good = {name: t for name, t in expected.items() if name != GONE}
    if not expected:  # else the earlier checkpoint differs, too
        save(tmp_path, 5, **good)
    save(tmp_path, 10, **changes)
    offer = r"; move step-00000010 away to go on from step-00000005, the newest good checkpoint$"
    none = r"; no other checkpoint is good: choose another output to begin again$"
    with pytest.raises(ValueError, match=line + (none if expected else offer)) as refusal:
        checkpoint.compare(checkpoint.newest(tmp_path), blank(**expected))
    assert "\n" not in str(refusal.value)


def test_only_the_kinds_that_are_asked_for_are_compared(tmp_path):
    save(tmp_path, 5, **{"optimizer/w/exp_avg": torch.zeros(1)})
    checkpoint.compare(checkpoint.newest(tmp_path), {"ema/w": torch.zeros(4, 3)})


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ({"step": 9, "recipe": {}}, r"state.json says step 9, the folder step 10"),
        ({"step": "10", "recipe": {}}, r"state.json is damaged \(step: input should be a valid integer\)"),
        ({"step": -1, "recipe": {}}, r"state.json is damaged \(step: input should be greater than or equal to 0\)"),
        ({"step": 10, "recipe": []}, r"state.json is damaged \(recipe: "),
        ({"step": 10, "recipe": {}, "scaler": {"scale": "x"}}, r"state.json is damaged \(scaler.scale: "),
        ("[" * 100_000, r"state.json is damaged \(invalid json: recursion limit exceeded"),
        ('{"step": ' + "9" * 5000, r"state.json is damaged \("),
        (" " * 2**21, r"state.json is damaged \(it has more than 1 MiB"),
        ("", r"state.json is damaged \(invalid json: eof while parsing"),
    ],
)
def test_a_state_that_cannot_be_is_one_line(tmp_path, state, line):
    save(tmp_path, 5)
    path = save(tmp_path, 10)
    (path / "state.json").write_text(state if isinstance(state, str) else json.dumps(state))
    with pytest.raises(ValueError, match=line) as refusal:
        checkpoint.newest(tmp_path)
    assert str(refusal.value).endswith(
        "move step-00000010 away to go on from step-00000005, the newest good checkpoint"
    )
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 500


def test_a_file_cut_short_or_gone_is_one_line(tmp_path):
    path = save(tmp_path, 10)
    (file,) = path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"step-00000010 is damaged \(.*; no other checkpoint is good"):
        checkpoint.newest(tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match=r"step-00000010 is damaged \(it holds no tensors\)"):
        checkpoint.newest(tmp_path)


@pytest.mark.parametrize("name", ["state.json", "tensors-00001.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_file_is_not_waited_for(tmp_path, name, kind):
    path = save(tmp_path, 10)
    (path / name).unlink()
    os.mkfifo(path / name) if kind == "pipe" else (path / name).symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=rf"damaged \(.*{name}: a {kind}; give a regular file"):
        checkpoint.newest(tmp_path)
