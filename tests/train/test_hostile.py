"""Runs that find a checkpoint which is damaged, of another network, or made to run code."""

import os
import pickle
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.train.runs import assert_same, state
from unleak.train.config import RecipeError, dump_recipe
from unleak.train.export import export
from unleak.train.trainer import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_folder, photos):
    """A run of two steps with a checkpoint of each, without its pipeline."""
    from unleak.train.config import parse_recipe

    output = tmp_path_factory.mktemp("trained") / "run"
    data = {"kind": "synthetic", "photos": str(photos), "size": 32, "num_frames": 3, "length": 5}
    values = {"model": str(tiny_folder), "output": str(output), "data": data, "condition": {"noise": "none"}}
    recipe = parse_recipe(values | {"steps": 2, "lr": 1e-3, "checkpoint_every": 1})
    train(recipe)
    shutil.rmtree(output / "pipeline")
    return recipe


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it that one more step is asked of."""
    shutil.copytree(trained.output, tmp_path / "run")
    return trained.model_copy(update={"output": tmp_path / "run", "steps": 3})


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


class Shell:
    """Makes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_the_guard_can_fail(tmp_path):
    pickle.loads(pickle.dumps(Shell(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", [".metadata", "optimizer.pt"])
def test_no_pickle_of_a_checkpoint_runs(run, tmp_path, name):
    path = run.output / "checkpoints" / "step-00000002"
    if name == "optimizer.pt":  # of an older unleak
        for kind in ("model", "ema"):
            save_file({"x": torch.zeros(1)}, path / f"{kind}.safetensors")
        torch.save(Shell(tmp_path / "ran"), path / name)
    else:
        (path / name).write_bytes(pickle.dumps(Shell(tmp_path / "ran")))
    for ask in (lambda: train(run), lambda: export(run, tmp_path / "new")):
        with pytest.raises(ValueError, match=rf"step-00000002.*{name}.*to go on from step-00000001") as refusal:
            ask()
        assert "\n" not in str(refusal.value)
        assert name == "optimizer.pt" or "export its model with that unleak (--export FOLDER)" in str(refusal.value)
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "new").exists()


def changed(path, change):
    (file,) = path.glob("*.safetensors")
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def reshape(kind, slot=""):
    def change(tensors):
        name = next(n for n in sorted(tensors) if n.startswith(kind) and n.endswith(slot) and tensors[n].ndim > 1)
        tensors[name] = tensors[name].flatten()[:1].clone()

    return change


def without(kind):
    def change(tensors):
        for name in [n for n in tensors if n.startswith(kind)]:
            del tensors[name]

    return change


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (reshape("model/"), r"step-00000002/tensors-00001.safetensors: model/\S+ has the shape \[1\], the network"),
        (reshape("ema/"), r"tensors-00001.safetensors: ema/\S+ has the shape \[1\]"),
        (reshape("optimizer/", "/exp_avg"), r"tensors-00001.safetensors: optimizer/\S+/exp_avg has the shape \[1\]"),
        (without("optimizer/"), r"step-00000002 has no tensor optimizer/\S+/step, which the network has"),
        (without("model/conv_in.weight"), r"step-00000002 has no tensor model/conv_in.weight"),
        (lambda t: t.update({"model/more": torch.zeros(1)}), r"model/more is a tensor that the network does not have"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_does_not_fit_is_refused_and_nothing_is_touched(run, change, line):
    changed(run.output / "checkpoints" / "step-00000002", change)
    before = files(run.output)
    with pytest.raises(ValueError, match=line + r".*; move step-00000002 away to go on from step-00000001") as refusal:
        train(run)
    assert "\n" not in str(refusal.value)
    assert files(run.output) == before


def test_what_is_offered_works(run, trained):
    changed(run.output / "checkpoints" / "step-00000002", reshape("model/"))
    with pytest.raises(ValueError, match="to go on from step-00000001"):
        train(run)
    (run.output / "checkpoints" / "step-00000002").rename(run.output / "away")
    train(run.model_copy(update={"steps": 2}))
    assert_same(state(run), state(trained))


def test_a_recipe_in_the_state_that_is_none_is_one_line(run):
    path = run.output / "checkpoints" / "step-00000002" / "state.json"
    path.write_text('{"step": 2, "recipe": {"model": 3}}')
    with pytest.raises(RecipeError, match=r"state.json: its recipe is not one \(.*\); move it away") as refusal:
        train(run)
    assert "\n" not in str(refusal.value)


def test_a_checkpoint_of_an_earlier_version_is_gone_on_from(run, trained):
    """The same tensors as older versions stored them: the optimizer's by place, in a file of torch.save."""
    path = run.output / "checkpoints" / "step-00000002"
    (file,) = path.glob("*.safetensors")
    with safe_open(file, "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    file.unlink()
    names = list(dict.fromkeys(_trained(run)))
    for kind in ("model", "ema"):
        save_file({name: tensors[f"{kind}/{name}"] for name in names}, path / f"{kind}.safetensors")
    slots = ("step", "exp_avg", "exp_avg_sq")
    kept = {i: {slot: tensors[f"optimizer/{name}/{slot}"] for slot in slots} for i, name in enumerate(names)}
    torch.save(
        {"optimizer": {"state": kept, "param_groups": []}, "scaler": None, "readout": None}, path / "optimizer.pt"
    )
    train(run)
    again = trained.model_copy(update={"output": run.output.with_name("again"), "steps": 3})
    train(again)
    assert_same(state(run), state(again))


def _trained(recipe):
    from unleak.train.networks import load_view, trained_weights

    return trained_weights(recipe, load_view(recipe))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a file system of a few megabytes")
def test_a_disk_that_is_really_full_is_one_line(run, tmp_path):
    """On a file system of its own, too small for a second checkpoint."""
    size = sum(len(content) for content in files(run.output / "checkpoints" / "step-00000002").values())
    disk = tmp_path / "disk"
    disk.mkdir()
    full = run.model_copy(update={"output": disk / "run", "steps": 2})
    recipe = tmp_path / "full.yaml"
    recipe.write_text(dump_recipe(full))
    script = (
        f"mount -t tmpfs -o size={int(1.5 * size)} none {disk} || exit 77; "
        f"{sys.executable} -m unleak.train {recipe}; status=$?; ls -A {disk}/run/checkpoints; exit $status"
    )
    mine = ["unshare", "--mount", "--map-root-user"]
    ran = subprocess.run([*mine, "sh", "-c", script], capture_output=True, text=True, timeout=300)
    if ran.returncode in (1, 77) and "unleak" not in ran.stderr:
        pytest.skip("no file system can be mounted here")
    assert ran.returncode == 2, ran.stderr
    said = ran.stderr.splitlines()[-1]
    assert said == f"{disk}/run/checkpoints/step-00000002: No space left on device"
    assert "Traceback" not in ran.stderr
    assert ran.stdout.split() == ["step-00000001"]
