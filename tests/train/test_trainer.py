import json
import signal
import sys
import types

import numpy as np
import pytest
import torch
from accelerate import DistributedType
from diffusers import StableVideoDiffusionPipeline
from safetensors.torch import load_file

from tests.train.runs import assert_same, state
from unleak.data.synthetic import SyntheticClips
from unleak.data.video import write_video
from unleak.train import together
from unleak.train.__main__ import main
from unleak.train.check import check
from unleak.train.config import RecipeError, dump_recipe
from unleak.train.data import Order, StepSampler
from unleak.train.export import export
from unleak.train.log import DivergedError
from unleak.train.optimizer import lr_at
from unleak.train.trainer import train

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def straight(recipe, tmp_path):
    """Four steps in one go, on three and a half epochs' worth of a cosine schedule."""
    run = recipe(output=str(tmp_path / "straight"), schedule="cosine", warmup_steps=1)
    train(run)
    return run


def test_a_killed_run_resumes_bit_for_bit(recipe, straight, tmp_path, monkeypatch):
    run = straight.model_copy(update={"output": tmp_path / "killed"})
    read, clip = [], SyntheticClips.__getitem__

    def dying(self, index):
        read.append(index)
        if len(read) == 7:  # in the fourth step, after the checkpoint of the second
            raise KeyboardInterrupt
        return clip(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(SyntheticClips, "__getitem__", dying)
        with pytest.raises(KeyboardInterrupt):
            train(run)
    assert state(run).step == 2
    (run.output / "checkpoints" / ".partial-step-00000004").mkdir()  # a save that was cut short
    with (run.output / "log.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')  # as was this line
    torch.manual_seed(99)  # nothing may hang on the global generator
    train(run)
    assert_same(state(run), state(straight))
    assert not list((run.output / "checkpoints").glob(".*"))
    lines = [json.loads(line) for line in (run.output / "log.jsonl").read_text().splitlines()]
    whole = [json.loads(line) for line in (straight.output / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [line["loss"] for line in lines] == [line["loss"] for line in whole]


def test_fewer_steps_and_then_more_are_the_same_run(recipe, tmp_path):
    long = recipe(output=str(tmp_path / "long"), ema_decay=0.5)
    short = long.model_copy(update={"output": tmp_path / "short", "steps": 3, "checkpoint_every": 100, "log_every": 7})
    train(long)
    train(short)
    assert state(short).step == 3
    train(short.model_copy(update={"steps": 4}))
    assert_same(state(short), state(long))


def test_the_guard_can_fail(recipe, straight, tmp_path):
    other = straight.model_copy(update={"output": tmp_path / "other", "seed": 1})
    train(other)
    with pytest.raises(AssertionError, match="model"):
        assert_same(state(other), state(straight))


def test_a_changed_recipe_is_refused(recipe, straight):
    changed = straight.model_copy(update={"lr": 1e-2, "sigma": straight.sigma.model_copy(update={"p_mean": 0.7})})
    with pytest.raises(RecipeError, match=r"differing in lr, sigma.p_mean: restore these or choose another output$"):
        train(changed)


def test_the_output_is_a_pipeline_with_the_average(recipe, straight):
    folder = straight.output / "pipeline"
    assert json.loads((folder / "model_index.json").read_text())["feature_extractor"][1] == "CLIPImageProcessor"
    weights = load_file(folder / UNET)
    final = state(straight)
    assert all(torch.equal(weights[name], final.ema[name]) for name in weights)
    assert not all(torch.equal(weights[name], final.model[name]) for name in weights)
    assert (folder / "recipe.yaml").read_text() == (straight.output / "recipe.yaml").read_text()
    half = export(straight.model_copy(update={"dtype": "fp16"}), straight.output / "half")
    assert StableVideoDiffusionPipeline.from_pretrained(half, dtype=torch.float16).unet.dtype == torch.float16
    stored = load_file(half / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(stored[name], weights[name].half()) for name in weights)


def test_accumulation_changes_rounding_only(recipe, tmp_path):
    whole = recipe(output=str(tmp_path / "whole"), steps=1, condition={"noise": "none"})
    pieces = whole.model_copy(update={"output": tmp_path / "pieces", "accumulation": 2})
    train(whole)
    train(pieces)
    one, other = state(whole).optimizer, state(pieces).optimizer
    assert one.keys() == other.keys()
    for ours, theirs in zip(one.values(), other.values(), strict=True):
        torch.testing.assert_close(ours["exp_avg"], theirs["exp_avg"], rtol=1e-3, atol=1e-6)


def test_processes_share_a_step_without_overlap():
    def positions(processes, accumulation):
        order = Order(seed=0, length=5, batch_size=8)
        options = {"steps": range(3, 4), "accumulation": accumulation, "processes": processes}
        samplers = [StepSampler(order, rank=rank, **options) for rank in range(processes)]
        return sorted(p for s in samplers for piece in range(accumulation) for p in s.positions(3, piece))

    assert positions(1, 1) == positions(2, 1) == positions(2, 2) == positions(4, 2) == list(range(24, 32))


def test_the_module_is_a_command(recipe, tmp_path, capsys):
    run = recipe(steps=1)
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(run))
    assert main([str(path)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{run.output / 'pipeline'}\n"
    assert said.err.startswith("step 1/1  loss ")
    train(run.model_copy(update={"output": tmp_path / "quiet"}), quiet=True)
    assert capsys.readouterr() == ("", "")
    assert main([str(path), "--export", str(tmp_path / "copy")]) == 0
    assert (tmp_path / "copy" / "model_index.json").exists()
    for arguments, line in (
        (["--set", "lr=0"], "recipe.yaml: lr: input should be greater than 0 (given 0)"),
        (["--set", "seed=1"], "differing in seed"),
    ):
        capsys.readouterr()
        assert main([str(path), *arguments]) == 2
        assert line in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("condition", "latents"),
    [
        ({"noise": "none", "noise_aug_strength": 0.02}, "mode"),
        ({"noise": "pixel"}, "mode"),
        ({"noise": "none"}, "sample"),
    ],
)
def test_cached_latents_train_the_same_to_half_precision(recipe, tmp_path, condition, latents):
    plain = recipe(output=str(tmp_path / "plain"), steps=1, condition=condition, latents=latents)
    cached = plain.model_copy(
        update={
            "output": tmp_path / "cached",
            "data": plain.data.model_copy(update={"cache": tmp_path / "cache"}),
        }
    )
    train(plain)
    train(cached)
    losses = [json.loads((run.output / "log.jsonl").read_text())["loss"] for run in (plain, cached)]
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)


def test_only_what_is_trainable_moves(recipe, tiny_svd):
    run = recipe(steps=2, trainable=["*temporal_transformer_blocks*"])
    train(run)
    before, after = tiny_svd.unet.state_dict(), load_file(run.output / "pipeline" / UNET)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    trained = {name for name in before if "temporal_transformer_blocks" in name}
    assert set(state(run).ema) == set(state(run).model) == trained >= moved
    with pytest.raises(RecipeError, match="no parameter of the network matches nothing"):
        train(recipe(output=str(run.output / "other"), trainable=["nothing"]))


def test_random_weights_follow_the_seed(recipe, tmp_path):
    runs = [
        recipe(output=str(tmp_path / f"{i}"), init="random", steps=1, seed=seed, lr=1e-9)
        for i, seed in enumerate([0, 0, 1])
    ]
    for run in runs:
        train(run)
    first, again, other = (state(run).model["conv_in.weight"] for run in runs)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_size_the_network_cannot_halve_is_refused(recipe):
    run = recipe()
    with pytest.raises(RecipeError, match=r"data.size: clips of 40x40 pixels; this model needs multiples of 16"):
        train(run.model_copy(update={"data": run.data.model_copy(update={"size": 40})}))


def test_tensorboard(recipe):
    run = recipe(steps=1, report_to="tensorboard")
    train(run)
    assert list(run.output.rglob("events.out.tfevents*"))


def test_weights_and_biases(recipe, monkeypatch, tmp_path):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = recipe(steps=1, report_to="wandb")
    train(run)
    assert wandb.run is None  # it was finished
    assert list(run.output.rglob("run-*.wandb"))


def test_time_runs_out(recipe):
    run = recipe(steps=1000, max_hours=1e-9, log_every=50)
    train(run)
    assert state(run).step == 1
    assert (run.output / "pipeline" / "model_index.json").exists()


def test_a_loss_that_is_not_finite_stops_before_it_is_saved(recipe):
    run = recipe(steps=50, checkpoint_every=1, clip=None).model_copy(update={"lr": 1e30})
    with pytest.raises(DivergedError, match=r"not finite.*; the last checkpoint is still good"):
        train(run)
    assert all(weight.isfinite().all() for weight in state(run).model.values())


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, 0.8536, 0.5, 0.1464]),
    ],
)
def test_learning_rate(recipe, schedule, expected):
    run = recipe(lr=2.0, warmup_steps=2, steps=6, schedule=schedule)
    assert [lr_at(run, step) / 2 for step in range(6)] == pytest.approx(expected, abs=1e-4)


def test_a_folder_of_videos(recipe, tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    rng = np.random.default_rng(0)
    for name, frames in (("a", 9), ("b", 12), ("short", 2)):
        write_video(rng.integers(0, 256, (frames, 40, 56, 3), dtype=np.uint8), clips / f"{name}.mp4", fps=6)
    (clips / "broken.mp4").write_bytes(b"no video")
    data = {"kind": "folder", "path": str(clips), "size": [32, 32], "num_frames": 3, "fps": 3.0, "max_failures": 0.5}
    train(recipe(data=data, steps=1))
    with pytest.raises(ValueError, match=r"2 of 4 videos cannot be used") as refusal:
        train(recipe(data={**data, "max_failures": 0.4}, output=str(tmp_path / "none")))
    assert "broken.mp4: not a video that can be read" in str(refusal.value)


@pytest.mark.slow
def test_validation_videos_leave_the_run_as_it_was(recipe, straight, photos, tmp_path):
    config = {"photos": str(photos), "every": 2, "most": 1, "steps": 2, "start": "sigma=100"}
    watched = recipe(output=str(tmp_path / "watched"), schedule="cosine", warmup_steps=1, validation=config)
    train(watched)
    assert_same(state(watched), state(straight))
    made = sorted(str(p.relative_to(watched.output)) for p in watched.output.glob("validation/*/*"))
    steps = ("step-00000002", "step-00000004")
    assert made == [f"validation/{step}/0.{kind}.mp4" for step in steps for kind in ("fixed", "plain")]
    lines = [json.loads(line) for line in (watched.output / "validation.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert all(set(line["motion"]) == {"plain", "fixed"} for line in lines)
    with (watched.output / "validation.jsonl").open("a") as file:
        file.write('{"step": 7, "motion": {}}\n')  # of a run that was killed after its last checkpoint
    train(watched)
    assert [json.loads(line)["step"] for line in (watched.output / "validation.jsonl").open()] == [2, 4]
    with pytest.raises(ValueError, match="outside"):
        train(recipe(output=str(tmp_path / "none"), validation={**config, "start": "sigma=1000"}))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"optimizer": "adamw8bit"}, "optimizer: adamw8bit: needs bitsandbytes, which is not installed"),
        ({"report_to": "wandb"}, "report_to: needs wandb, which is not installed; pip install wandb"),
        (
            {"sharding": "fsdp", "optimizer": "muon"},
            "optimizer: muon needs whole weights; with sharding: fsdp give adamw",
        ),
        ({"sharding": "fsdp", "motion_readout": 1.0}, "motion_readout: needs whole weights"),
        ({"sharding": "fsdp", "experts": "both"}, "experts: both: the processes would wait for each other"),
    ],
)
def test_what_is_missing_is_told_before_anything_is_loaded(recipe, monkeypatch, change, line):
    monkeypatch.setattr(
        "unleak.train.check.find_spec", lambda name: None if name in ("bitsandbytes", "wandb") else name
    )
    monkeypatch.setattr("unleak.train.trainer.load_view", None)
    run = recipe()
    with pytest.raises(RecipeError, match=line):
        check(run.model_copy(update=change))


def test_a_second_run_in_one_output_touches_nothing(recipe, straight, tmp_path, monkeypatch):
    def files():
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in straight.output.rglob("*")}

    monkeypatch.setattr(together, "_PATIENCE", 0.1)
    with together.alone_in(straight.output):
        before = files()
        with pytest.raises(RecipeError, match=r"output: another run is writing to .*straight: wait until it ends"):
            train(straight.model_copy(update={"steps": 6}))
        assert files() == before
    with pytest.raises(RecipeError), together.alone_in(tmp_path / "new"):  # a run that fails before it made anything
        raise RecipeError
    assert not (tmp_path / "new").exists()


def test_settings_of_the_launcher_do_not_change_a_run(recipe, straight, monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    other = straight.model_copy(update={"output": straight.output.with_name("other")})
    train(other)
    assert_same(state(other), state(straight))
    monkeypatch.setattr("unleak.train.trainer.Accelerator.distributed_type", DistributedType.FSDP)
    with pytest.raises(RecipeError, match=r"accelerate is configured for FSDP.*sharding: fsdp"):
        train(other)


def test_eight_bits(recipe, monkeypatch):
    made = []
    module = types.SimpleNamespace(
        AdamW8bit=lambda weights, **options: made.append(options) or torch.optim.AdamW(weights)
    )
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", module)
    monkeypatch.setattr("unleak.train.check.find_spec", lambda name: name)
    train(recipe(optimizer="adamw8bit", steps=1))
    assert made == [{"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.01}]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_run_that_is_asked_to_stop_saves_says_so_and_goes_on(
    recipe, straight, tmp_path, monkeypatch, capsys, number, status
):
    """Ctrl-C in the middle of the third step, which no checkpoint was due after."""
    run = straight.model_copy(update={"output": tmp_path / "stopped", "checkpoint_every": 100})
    read, clip = [], SyntheticClips.__getitem__

    def watched(self, index):
        read.append(index)
        if len(read) == 5:
            signal.raise_signal(number)
        return clip(self, index)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(SyntheticClips, "__getitem__", watched)
        with pytest.raises(status):
            train(run)
    assert signal.getsignal(number) is before
    assert capsys.readouterr().err.splitlines()[-1] == "stopped at step 3; the same command goes on"
    assert state(run).step == 3
    assert not (run.output / "pipeline").exists()
    train(run)
    assert_same(state(run), state(straight))


def test_a_second_ctrl_c_ends_the_run_at_once(recipe, monkeypatch):
    read, clip = [], SyntheticClips.__getitem__

    def watched(self, index):
        read.append(index)
        if len(read) in (5, 6):
            signal.raise_signal(signal.SIGINT)
        return clip(self, index)

    monkeypatch.setattr(SyntheticClips, "__getitem__", watched)
    run = recipe()
    with pytest.raises(KeyboardInterrupt):
        train(run)
    assert len(read) == 6
    assert state(run).step == 2


def test_other_steps_would_change_the_learning_rate(recipe, straight):
    longer = straight.model_copy(update={"steps": 8})
    with pytest.raises(RecipeError, match=r"differing in steps: restore these or choose another output"):
        train(longer)
    assert lr_at(longer, 2) != lr_at(straight, 2)
