"""Every family through the whole loop, with the training data of a folder."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import LTXImageToVideoPipeline, WanImageToVideoPipeline
from safetensors.torch import load_file

from tests.tiny.model import embeds, noise, photo
from tests.train.builds import BUILD, SIZE
from tests.train.runs import assert_close, assert_same, launch, state
from unleak.data.video import write_video
from unleak.train.config import RecipeError, parse_recipe
from unleak.train.trainer import train
from unleak.zoo import hub

DOCS = (Path(__file__).parents[2] / "docs/train.md").read_text()


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for name in "abc":
        write_video(rng.integers(0, 256, (12, 40, 56, 3), dtype=np.uint8), folder / f"{name}.mp4", fps=6)
        (folder / f"{name}.txt").write_text("a dog runs" if name != "c" else "")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")

    def saved(name):
        if not (folder / name).exists():
            BUILD[name]().save_pretrained(folder / name)
        return folder / name

    return saved


@pytest.fixture
def run(tmp_path, clips, models):
    """A function: train a tiny model of a family and return its recipe."""
    count = 0

    def make(family, *, data=None, **changes):
        nonlocal count
        count += 1
        size, frames = SIZE.get(family, ([16, 24], 4))
        values = {
            "model": str(models(family)),
            "output": str(tmp_path / f"{count}"),
            "data": {"kind": "folder", "path": str(clips), "size": size, "num_frames": frames, "fps": 3.0}
            | (data or {}),
            "condition": {"noise": "timenoise", "dropout": 0.1},
            "steps": 2,
            "batch_size": 2,
            "lr": 1e-2,
            "log_every": 1,
            "checkpoint_every": 1,
            "ema_decay": 0.0,
        }
        recipe = parse_recipe(values | changes)
        train(recipe, quiet=True)
        return recipe

    return make


def losses(recipe):
    return [json.loads(line)["loss"] for line in (recipe.output / "log.jsonl").read_text().splitlines()]


def moved(recipe, start, part):
    """Names of the weights of a part of the pipeline that training changed."""
    file = "diffusion_pytorch_model.safetensors"
    before, after = load_file(start / part / file), load_file(recipe.output / "pipeline" / part / file)
    return {name for name in before if not torch.equal(before[name], after[name])}, set(before)


def test_dynamicrafter_trains_its_projection_too_and_resumes(run, models):
    whole = run("dynamicrafter", data={"condition_frame": "random", "fps": None, "stride": [1, 2], "flip": True})
    for part in ("unet", "image_projection"):
        changed, _ = moved(whole, models("dynamicrafter"), part)
        assert changed
    assert not moved(whole, models("dynamicrafter"), "vae")[0]
    short = whole.model_copy(update={"steps": 1, "output": whole.output.with_name("short")})
    train(short, quiet=True)
    train(short.model_copy(update={"steps": 2}), quiet=True)
    assert_same(state(short), state(whole))


@pytest.mark.slow
def test_no_noise_is_the_naive_recipe_bit_for_bit(run):
    naive = run("videocrafter1", condition={"noise": "none", "dropout": 0.1})
    nothing = run("videocrafter1", condition={"noise": "timenoise", "beta_m": 0.0, "dropout": 0.1})
    noised = run("videocrafter1", condition={"noise": "timenoise", "mu_max": 4.0, "dropout": 0.1})
    assert_same(state(nothing), state(naive))
    assert losses(noised) != losses(naive)


def test_temporal_layers_alone_or_all_others(run, models):
    layers = {}
    for which in ("temporal", "spatial"):
        recipe = run("videocrafter1", trainable=which, weight_decay=0.0)
        layers[which], every = set(state(recipe).model), moved(recipe, models("videocrafter1"), "unet")[1]
        assert moved(recipe, models("videocrafter1"), "unet")[0] <= layers[which]
    assert layers["temporal"] | layers["spatial"] == every
    assert not layers["temporal"] & layers["spatial"]
    # Of a spatial and a temporal transformer side by side, the first is left alone.
    assert "input_blocks.1.2.proj_in.weight" in layers["temporal"]
    assert "input_blocks.1.1.proj_in.weight" in layers["spatial"]
    assert all(".temporal." in name or ".2." in name or "first" in name for name in layers["temporal"])


def test_a_cache_of_latents_and_texts_trains_the_same_to_half_precision(run, tmp_path):
    plain = run("wan22", trainable="lora", experts="high", condition={"noise": "none"})
    cached = run(
        "wan22",
        trainable="lora",
        experts="high",
        condition={"noise": "none"},
        data={"cache": str(tmp_path / "cache")},
        gradient_checkpointing=True,
    )
    assert losses(cached) == pytest.approx(losses(plain), rel=5e-3)
    assert len(list((tmp_path / "cache").glob("texts-*/*.safetensors"))) == 1


@pytest.mark.parametrize("experts", ["high", "low", "both"])
def test_adapters_are_read_by_diffusers_in_both_forms(run, models, experts):
    recipe = run(
        "wan22",
        trainable="lora",
        experts=experts,
        lora={"rank": 4, "alpha": 8, "targets": "blocks"},
        frozen_dtype="bf16",
    )
    folder, parts = recipe.output / "lora", {"high": [""], "low": ["_2"], "both": ["", "_2"]}[experts]
    apart = {part: f"transformer{part}." if len(parts) == 2 else "" for part in parts}

    def latents(pipe):
        inputs = {"prompt_embeds": embeds(1, 4, 16), "negative_prompt_embeds": embeds(1, 4, 16, seed=2)}
        size = {"height": 32, "width": 16, "num_frames": 5, "num_inference_steps": 4}
        return pipe(photo(32, 16), **inputs, **size, generator=noise(), output_type="latent").frames

    plain = WanImageToVideoPipeline.from_pretrained(models("wan22"))
    plain.set_progress_bar_config(disable=True)
    without = latents(plain)
    made = []
    for kind in ("pytorch_lora_weights", "comfyui"):
        for part, prefix in apart.items():
            options = {"load_into_transformer_2": bool(part), "adapter_name": f"{kind}{part}"}
            plain.load_lora_weights(folder, weight_name=f"{prefix}{kind}.safetensors", **options)
        made.append(latents(plain))
        plain.unload_lora_weights()
    assert not torch.allclose(made[0], without, atol=1e-4)
    torch.testing.assert_close(*made)
    torch.testing.assert_close(latents(plain), without)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["ltx", "wan5b"])
def test_the_image_in_the_video_itself_naive_noised_and_resumed(run, family):
    """beta_m = 0 is the naive recipe bit for bit; a run in two parts is the one in one; other noises are others."""
    small = {"trainable": "lora", "lora": {"rank": 2}}
    naive = run(family, condition={"noise": "none"}, **small)
    nothing = run(family, condition={"noise": "timenoise", "beta_m": 0.0}, **small)
    noised = run(family, condition={"noise": "timenoise", "beta_m": 1.0, "a": 0.5}, **small)
    told = run(family, condition={"noise": "none", "first_frame_sigma": 0.5}, gradient_checkpointing=True, **small)
    assert_same(state(nothing), state(naive))
    assert len({tuple(losses(one)) for one in (naive, noised, told)}) == 3
    short = noised.model_copy(update={"steps": 1, "output": noised.output.with_name("short")})
    train(short, quiet=True)
    train(short.model_copy(update={"steps": 2}), quiet=True)
    assert_same(state(short), state(noised))


def test_a_tiny_ltx_learns_its_clips(run):
    """The same draws before and after: the loss of a step depends on its number alone."""
    recipe = run("ltx", data={"fps": 6.0}, condition={"noise": "none", "dropout": 0.0}, steps=40, checkpoint_every=40)
    told = losses(recipe)
    assert sum(told[-10:]) < 0.6 * sum(told[:10])


def test_ltx_learns_all_its_weights_and_is_read_by_diffusers(run, models):
    recipe = run("ltx", steps=1, data={"buckets": [[64, 32, 5], [32, 64, 9]], "fps": 6.0})
    changed, every = moved(recipe, models("ltx"), "transformer")
    assert len(changed) > 0.9 * len(every)
    assert not moved(recipe, models("ltx"), "vae")[0]
    assert type(LTXImageToVideoPipeline.from_pretrained(recipe.output / "pipeline")) is LTXImageToVideoPipeline


def test_ltx_adapters_are_read_by_diffusers_in_both_forms(run, models):
    recipe = run("ltx", trainable="lora", lora={"rank": 4, "alpha": 8, "targets": "blocks"}, frozen_dtype="bf16")
    names = load_file(recipe.output / "lora/comfyui.safetensors")
    assert "diffusion_model.transformer_blocks.0.attn1.to_out.0.lora_A.weight" in names
    assert "diffusion_model.transformer_blocks.0.ff.net.0.proj.lora_B.weight" in names

    def latents(pipe):
        size = {"height": 64, "width": 32, "num_frames": 5, "num_inference_steps": 2, "output_type": "latent"}
        return pipe(photo(64, 32), "a dog runs", generator=noise(), **size).frames

    pipe = LTXImageToVideoPipeline.from_pretrained(models("ltx"))
    pipe.set_progress_bar_config(disable=True)
    without, made = latents(pipe), []
    for kind in ("pytorch_lora_weights", "comfyui"):
        pipe.load_lora_weights(recipe.output / "lora", weight_name=f"{kind}.safetensors")
        made.append(latents(pipe))
        pipe.unload_lora_weights()
    assert not torch.allclose(made[0], without, atol=1e-4)
    torch.testing.assert_close(*made)
    torch.testing.assert_close(latents(pipe), without)


@pytest.mark.parametrize(
    ("family", "data"), [("svd", {"size": [32, 32], "num_frames": 3}), ("dynamicrafter", {"condition_frame": "random"})]
)
def test_adapters_of_unets_are_read_back(run, models, monkeypatch, family, data):
    """As docs/train.md says: by peft, and by the UNet's own loader where it has one."""
    lora = {"rank": 2, "alpha": 6}
    recipe = run(family, data=data, trainable="lora", lora=lora, condition={"noise": "timenoise", "beta_m": 1.0})
    monkeypatch.chdir(recipe.output)
    (example,) = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    pipe, weights = hub.load(str(models(family)), device="cpu"), state(recipe).ema
    exec(example, {"pipe": pipe})
    own = {name: weight for name, weight in pipe.unet.named_parameters() if "lora_" in name}
    assert own.keys() == weights.keys() & own.keys()
    for name, weight in own.items():
        assert torch.allclose(weight, weights[name] * (3 if "lora_B" in name else 1)), name
    assert not (Path("lora") / "comfyui.safetensors").exists()
    if family == "dynamicrafter":
        pipe = hub.load(str(models(family)), device="cpu")
        pipe.unet.load_lora_adapter("lora", prefix="unet", use_safetensors=True)
        assert sum("lora_" in name for name, _ in pipe.unet.named_parameters()) == len(own)


@pytest.mark.parametrize(("since", "steps"), [(False, 9), (False, 4), (True, 4)])
def test_ltx_videos_while_training(run, models, tmp_path, since, steps):
    """Of both pipelines; the first with a cache of latents and texts."""
    (tmp_path / "photos").mkdir()
    photo(40, 56).save(tmp_path / "photos/a.png")
    recipe = run(
        "ltx since 0.9.5" if since else "ltx",
        data={} if since else {"cache": str(tmp_path / "cache")},
        steps=1,
        validation={"photos": str(tmp_path / "photos"), "every": 1, "steps": steps, "caption": "a dog runs"},
    )
    made = sorted(path.name for path in recipe.output.rglob("*.mp4"))
    assert made == ["a.fixed.mp4", "a.plain.mp4"]


@pytest.mark.slow
def test_two_processes_train_ltx_as_one_does(run):
    alone = run("ltx", trainable="lora", condition={"noise": "timenoise", "beta_m": 1.0})
    pair = alone.model_copy(update={"output": alone.output.with_name("pair")})
    launch(pair, processes=2)
    assert_close(state(alone), state(pair))
    assert losses(pair) == pytest.approx(losses(alone), rel=1e-5)
    parts = pair.model_copy(update={"output": alone.output.with_name("parts"), "sharding": "fsdp"})
    launch(parts, processes=2)
    assert losses(parts) == pytest.approx(losses(alone), rel=1e-5)
    whole, cut = (load_file(one.output / "lora/comfyui.safetensors") for one in (alone, parts))
    assert whole.keys() == cut.keys()


def test_clip_embeddings_of_wan_21(run):
    recipe = run("wan21", trainable="lora", steps=1)
    assert any("add_k_proj" in name for name in state(recipe).model)


@pytest.mark.parametrize(
    ("family", "changes", "line"),
    [
        ("videocrafter1", {"condition": {"noise": "pixel"}}, "condition.noise: pixel is how Stable Video Diffusion"),
        ("videocrafter1", {"condition": {"noise": "timenoise", "on": "latents"}}, "condition of this model is tokens"),
        ("videocrafter1", {"condition": {"noise": "none", "dropout": 0.5}}, "condition.dropout: counts three times"),
        ("videocrafter1", {"sigma": {"p_mean": 0.0}}, "sigma: the law of models trained on a sigma"),
        ("videocrafter1", {"flow": {"shift": 2.0}}, "flow: the law of a rectified flow's sigma"),
        ("videocrafter1", {"experts": "high"}, "experts: this model has a single network"),
        ("wan22", {"trainable": "temporal"}, "trainable: temporal: no layer of this network works along time alone"),
        ("ltx", {"data": {"num_frames": 1}}, "data.num_frames: 1: the image is this network's first frame"),
        ("wan5b", {"data": {"num_frames": 1}}, "data.num_frames: 1: the image is this network's first frame"),
        ("ltx", {"data": {"num_frames": 7}}, "data.num_frames: 7; this model needs multiples of 4, plus 1"),
        ("ltx", {"experts": "high"}, "experts: this model has a single network"),
        ("wan22", {"condition": {"noise": "none", "first_frame_sigma": 0.1}}, "condition.first_frame_sigma: of models"),
        ("videocrafter1", {"condition": {"noise": "none", "first_frame_sigma": 0.1}}, "first_frame_sigma: of models"),
        ("wan22", {"latents": "sample"}, "latents: sample: this model was trained on the mode"),
        ("wan22", {"data": {"num_frames": 6}}, "data.num_frames: 6; this model needs multiples of 4, plus 1"),
        ("wan21", {"trainable": "lora", "lora": {"targets": ["nothing"]}}, "lora.targets: no layer of the transformer"),
        ("wan21", {"trainable": "lora", "experts": "low"}, "experts: low: this model has a single network"),
    ],
)
def test_what_a_family_cannot_honour_is_told(run, family, changes, line):
    with pytest.raises((RecipeError, ValueError)) as refusal:
        run(family, **changes)
    assert line in str(refusal.value)


def test_the_guard_names_the_clips(run, monkeypatch):
    monkeypatch.setattr("unleak.train.trainer.lr_at", lambda recipe, step: 1e30)  # which no recipe may ask for
    with pytest.raises(ValueError, match=r"step \d+: the loss is not finite, of .*[abc]\.mp4"):
        run("videocrafter1", steps=20, clip=None, checkpoint_every=50, log_every=3)
