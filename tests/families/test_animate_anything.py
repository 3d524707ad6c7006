import json
import shutil
import sys
from inspect import signature

import numpy as np
import pytest
import torch
from PIL import Image

import unleak
from tests.tiny.animate_anything import call, tiny_animate_anything
from tests.tiny.model import photo
from unleak.core.initial import AnalyticInit
from unleak.core.moments import LatentMoments
from unleak.families.animate_anything.convert import convert, is_original, load_original
from unleak.families.animate_anything.mask import latent_mask, moving
from unleak.families.animate_anything.pipeline import AnimateAnythingPipeline
from unleak.families.animate_anything.preset import CALL, FPS
from unleak.families.animate_anything.reference import reference_scheduler
from unleak.families.animate_anything.view import AnimateAnythingView
from unleak.families.latents import encode_video
from unleak.zoo.hub import load
from unleak.zoo.registry import find_model

SIZE = {"size": (4, 6), "latent_size": (2, 3)}


@pytest.fixture(scope="module")
def pipe():
    return tiny_animate_anything()


def told(pipe, **changes):
    """What the network is given at the first step, by name."""
    seen = {}

    def watch(module, args, kwargs):
        if not seen:
            seen.update(kwargs, sample=args[0], timestep=args[1])

    hook = pipe.unet.register_forward_pre_hook(watch, with_kwargs=True)
    try:
        call(pipe, **{"num_inference_steps": 1} | changes)
    finally:
        hook.remove()
    return seen


@pytest.mark.parametrize("mode", ["rescale", "truncate"])
def test_the_full_start_is_the_plain_pipeline_and_removal_is_exact(mode):
    pipe = tiny_animate_anything()
    plain, cls = call(pipe), type(pipe)
    assert torch.equal(call(unleak.apply(pipe, start="1.0T", mode=mode)), plain)
    assert not torch.equal(call(unleak.apply(pipe, start=900, mode=mode)), plain)
    unleak.remove(pipe)
    assert type(pipe) is cls
    assert torch.equal(call(pipe), plain)


@pytest.mark.parametrize("start", [1000, 900, 820])
def test_it_starts_from_the_photo_and_noise_in_the_shares_of_its_own_schedule(pipe, start):
    alpha_bar = pipe.scheduler.alphas_cumprod[start - 1].double()
    seen = []
    for init in ("standard", "unit", moments := the_moments()):
        with unleak.applied(pipe, start=start, init=init):
            seen.append(told(pipe))
    standard, unit, analytic = (given["sample"][1:].double() for given in seen)
    assert {int(given["timestep"]) for given in seen} == {start - 1}
    photo_latents = seen[0]["condition_latent"][1:].double()
    eps = (standard - alpha_bar.sqrt() * photo_latents) / (1 - alpha_bar).sqrt()
    drawn = torch.randn((1, 4, 3, 8, 12), generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(eps, drawn, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(unit, drawn, rtol=1e-4, atol=1e-5)
    std = (1 - alpha_bar + alpha_bar * moments.moments.isotropic_variance).sqrt()
    expected = alpha_bar.sqrt() * moments.moments.mean + std * drawn
    torch.testing.assert_close(analytic, expected, rtol=1e-4, atol=1e-5)


def the_moments():
    mean = torch.randn((4, 3, 8, 12), generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return AnalyticInit(LatentMoments(7, mean, mean.square() + 0.5))


def test_each_step_goes_to_the_next_timestep_though_the_steps_do_not_divide_the_start(pipe):
    timesteps = []

    def after(pipe, step, timestep, kwargs):
        timesteps.append(int(timestep))
        return kwargs

    with unleak.applied(pipe, start=900):
        call(pipe, num_inference_steps=7, callback_on_step_end=after)
    assert timesteps[0] == 899
    assert len(timesteps) == 7
    assert min(timesteps) >= 0


def test_guidance_of_one_evaluates_one_branch(pipe):
    seen = told(pipe, guidance_scale=1.0, negative_prompt="dog")
    assert len(seen["sample"]) == len(seen["encoder_hidden_states"]) == len(seen["condition_latent"]) == 1
    both = told(pipe, guidance_scale=2.0, negative_prompt="dog")
    torch.testing.assert_close(both["encoder_hidden_states"][1:], seen["encoder_hidden_states"])
    assert not torch.equal(both["encoder_hidden_states"][0], both["encoder_hidden_states"][1])
    plain, guided = (call(pipe, guidance_scale=scale) for scale in (0.0, 1.0))
    assert torch.equal(plain, guided)


@pytest.mark.parametrize(
    "change",
    [
        {"mask": np.pad(np.ones((8, 12)), ((8, 0), (12, 0)))},
        {"motion_strength": 20.0},
        {"prompt": "dog dog dog"},
        {"guidance_scale": 1.0},
        {"eta": 1.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_option_changes_the_video(pipe, change):
    assert not torch.allclose(call(pipe, **change), call(pipe), atol=1e-4)


def test_a_pair_is_its_two_videos(pipe):
    """Each with an image, a text and noise of its own."""
    photos = [photo(16, 24), photo(16, 24, seed=6)]
    settings = {"height": 16, "width": 24, "num_frames": 3, "num_inference_steps": 2, "output_type": "latent"}
    seeds = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    pair = pipe(photos, ["a dog", "dog"], generator=seeds, **settings).frames
    for i, text in enumerate(("a dog", "dog")):
        alone = pipe(photos[i], text, generator=torch.Generator().manual_seed(i + 1), **settings).frames
        torch.testing.assert_close(pair[i : i + 1], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("output_type", ["pil", "np", "pt"])
def test_frames_come_as_asked_for(pipe, output_type):
    frames = call(pipe, output_type=output_type, num_inference_steps=1)[0]
    assert len(frames) == 3
    assert np.asarray(frames[0]).shape == ((3, 16, 24) if output_type == "pt" else (16, 24, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 15}, "24x15 pixels: width and height have to be multiples of 2"),
        ({"num_frames": 0}, "num_frames=0: give 1 or more"),
        ({"motion_strength": -1.0}, "motion_strength=-1.0: give a number from 0 on"),
        ({"motion_strength": float("nan")}, "motion_strength=nan"),
        ({"prompt_embeds": torch.zeros(1, 8, 8)}, "prompt and prompt_embeds say the same thing"),
        ({"negative_prompt": ["a", "dog"]}, "negative_prompt: 2 were given for 1 prompts"),
        ({"latents": torch.zeros(1, 4, 2, 8, 12)}, r"latents: \[1, 4, 2, 8, 12\] were given, \[1, 4, 3, 8, 12\]"),
        ({"mask": torch.full((16, 24), 2.0)}, "from 2 to 2"),
        ({"mask": torch.zeros(3, 16, 24)}, r"of shape \[height width\], not \[3, 16, 24\]"),
        ({"reference_start": 3}, "at least the number of steps, 4"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_honoured_is_said(pipe, change, message):
    with pytest.raises(ValueError, match=message):
        call(pipe, **change)


@pytest.mark.parametrize(
    ("lacks", "change"), [("motion_mask", {"mask": torch.ones(16, 24)}), ("motion_strength", {"motion_strength": 5.0})]
)
def test_a_checkpoint_without_mask_or_strength_says_so(lacks, change):
    pipe = tiny_animate_anything(**{lacks: False})
    plain = {"motion_strength": None} if lacks == "motion_strength" else {}
    with pytest.raises(ValueError, match=f"trained without a {lacks.replace('_', ' ')}"):
        call(pipe, **plain | change)
    assert call(pipe, **plain).isfinite().all()


def test_the_published_numbers_and_another_start_exclude_each_other(pipe):
    with unleak.applied(pipe, start=900), pytest.raises(ValueError, match="reference_start=900 is a start of its own"):
        call(pipe, reference_start=900)
    with unleak.applied(pipe, start="1.0T"):
        assert not torch.equal(call(pipe, reference_start=900), call(pipe))


@pytest.mark.parametrize("start", [820, 1000])
def test_a_step_too_many_of_the_published_grid_stays_at_zero(pipe, start):
    timesteps = reference_scheduler(pipe.scheduler.config, start, 25).timesteps
    assert timesteps.min() >= 0
    assert timesteps[0] == start - 1


@pytest.mark.parametrize("strategy", [unleak.ConditionNoise(0.5), unleak.GuidanceInterval("0.6T")])
def test_strategies_attach(pipe, strategy):
    with unleak.applied(pipe, start=900):
        plain = call(pipe)
    with unleak.applied(pipe, start=900, strategies=[strategy]):
        changed = call(pipe)
    assert not torch.equal(plain, changed)


def test_a_sweep_has_the_same_noise_at_every_start(pipe):
    seen = []
    hook = pipe.unet.register_forward_pre_hook(lambda _, args: seen.append((int(args[1]), args[0])))
    inputs = {"height": 16, "width": 24, "num_frames": 2, "num_inference_steps": 1, "guidance_scale": 1.0}
    try:
        swept = unleak.sweep(pipe, start="1.00T,0.9T", init="unit", image=photo(16, 24), prompt="a dog", **inputs)
    finally:
        hook.remove()
    (first, x), (second, y) = seen
    assert (first, second) == (999, 899)
    torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)
    assert len(swept.scores) == 2


def test_the_call_has_the_published_settings_by_itself_and_in_the_zoo():
    parameters = signature(AnimateAnythingPipeline.__call__).parameters
    assert {name: parameters[name].default for name in CALL} == CALL
    assert find_model("animate-anything").defaults == CALL
    assert find_model("animate-anything").fps == FPS


# The mask


@pytest.mark.parametrize(
    ("mode", "colour", "moves"),
    [
        ("L", 255, True),
        ("L", 0, False),
        ("L", 10, False),  # JPEG's black
        ("RGB", (0, 0, 128), True),  # a class of a labelling tool
        ("RGBA", (255, 255, 255, 0), False),
        ("1", 1, True),
    ],
)
def test_anything_but_black_moves(mode, colour, moves):
    assert (moving(Image.new(mode, (3, 2), colour)) == moves).all()


def test_a_mask_is_scaled_to_the_latents():
    assert torch.equal(latent_mask(None, **SIZE), torch.ones(1, 1, 1, 2, 3))
    half = Image.new("L", (12, 8))
    half.paste(255, (4, 0, 12, 8))
    assert latent_mask(half, **SIZE)[0, 0, 0].tolist() == [[0, 1, 1], [0, 1, 1]]
    weights = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(latent_mask(weights, **SIZE)[0, 0, 0], weights)


# The view


@torch.no_grad()
def test_what_the_network_is_told_is_what_the_pipeline_tells(pipe):
    """Also the clean prediction: the scheduler's pred_original_sample of the same call."""
    mask = torch.zeros(16, 24)
    mask[4:12, 6:20] = 1
    clean = []
    step = pipe.scheduler.step

    def watched(*args, **kwargs):
        result = step(*args, **kwargs)
        clean.append(result.pred_original_sample)
        return result

    pipe.scheduler.step = watched
    try:
        seen = told(pipe, guidance_scale=1.0, mask=mask, motion_strength=7.0)
    finally:
        del pipe.scheduler.step
    view = AnimateAnythingView(pipe, {"mask": mask, "motion_strength": 7.0})
    image = torch.from_numpy(np.array(photo(16, 24))).permute(2, 0, 1)[None] / 127.5 - 1
    condition = view.encode_condition(image, ["a dog"], 4)
    torch.testing.assert_close(condition.latents[:, :, None], seen["condition_latent"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(condition.text, seen["encoder_hidden_states"])
    torch.testing.assert_close(condition.mask[:, None, None], seen["mask"])
    assert condition.strength.tolist() == seen["motion"].tolist() == [7]
    t = seen["timestep"][None]
    levels = view.levels_at(t)
    eps = torch.randn(shape := seen["sample"].shape, generator=torch.Generator().manual_seed(0))
    x_t = view.add_noise(torch.ones(shape), eps, levels)
    torch.testing.assert_close(x_t, pipe.scheduler.add_noise(torch.ones(shape), eps, t))
    assert torch.equal(view.target(x_t, eps, levels), eps)
    assert view.time(levels).item() == pytest.approx(0.999)
    ours = view.predict_clean(seen["sample"], levels, condition)
    torch.testing.assert_close(ours, clean[0], rtol=1e-4, atol=1e-4)
    video = torch.rand(1, 2, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(view.encode_video(video), encode_video(pipe, video))


# The published folder


@pytest.fixture(scope="module", params=["bin", "safetensors"])
def original(request, pipe, tmp_path_factory):
    """A folder as the original repository saves it."""
    folder = tmp_path_factory.mktemp("original") / request.param
    pipe.save_pretrained(folder, safe_serialization=request.param == "safetensors")
    edit(
        folder / "model_index.json",
        _class_name="LatentToVideoPipeline",
        unet=["models.unet_3d_condition_mask", "UNet3DConditionModel"],
    )
    edit(
        folder / "unet" / "config.json",
        _class_name="UNet3DConditionModel",
        num_attention_heads=...,
        time_cond_proj_dim=...,
    )
    weights = {**pipe.unet.state_dict(), **{f"motion_embedding.{i}.weight": torch.zeros(2, 2) for i in (0, 2)}}
    save(folder, weights)
    # What diffusers would run, were it asked to trust it.
    (folder / "unet" / "models.unet_3d_condition_mask.py").write_text("raise SystemExit('remote code was run')\n")
    return folder


def edit(path, **changes):
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not ...}))


def save(folder, weights):
    from safetensors.torch import save_file

    if folder.name.startswith("bin"):
        torch.save(weights, folder / "unet" / "diffusion_pytorch_model.bin")
    else:
        save_file(weights, folder / "unet" / "diffusion_pytorch_model.safetensors")


def test_the_published_folder_is_read_and_saved_as_a_clean_one(original, pipe, tmp_path):
    plain = call(pipe)
    assert is_original(original)
    assert torch.equal(call(quiet(load_original(original))), plain)
    convert(original, tmp_path / "clean")
    assert not is_original(tmp_path / "clean")
    assert not list((tmp_path / "clean").rglob("*.bin"))
    again = AnimateAnythingPipeline.from_pretrained(tmp_path / "clean", use_safetensors=True)
    assert torch.equal(call(quiet(again)), plain)
    alone = load(tmp_path / "clean", device="cpu", only=("vae",))  # as statistics are made
    assert alone.unet is None
    assert encode_video(alone, torch.zeros(1, 2, 3, 16, 24)).shape == (1, 4, 2, 8, 12)
    assert "models" not in sys.modules


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_the_zoo_says_how_to_read_the_published_folder(original):
    with pytest.raises(ValueError, match=f"`unleak convert animate-anything {original} FOLDER`"):
        find_model(original)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("class", r"its unet is \['evil', 'UNet3DConditionModel'\], not \['models.unet_3d_condition_mask'"),
        ("scheduler", "its scheduler is .*EulerDiscreteScheduler"),
        ("index", "model_index.json: damaged"),
        ("missing", "not the network that is expected: .*conv_in2.weight"),
        ("left over", "not the network that is expected: .*stranger"),
        ("shape", "not the network that is expected: .*size mismatch for conv_in.weight"),
        ("option", "not the network that is expected: .*unexpected keyword argument 'surprise'"),
        ("garbage", "damaged|not whole"),
        ("gone", "download the folder again"),
        ("vae", "not the weights that are expected: .*quant_conv"),
    ],
)
def test_another_folder_is_refused(original, pipe, tmp_path, damage, message):
    folder = shutil.copytree(original, tmp_path / f"{original.name}-{damage.replace(' ', '-')}")
    weights = dict(pipe.unet.state_dict())
    (file,) = (folder / "unet").glob("diffusion_pytorch_model.*")
    if damage == "class":
        edit(folder / "model_index.json", unet=["evil", "UNet3DConditionModel"])
    elif damage == "scheduler":
        edit(folder / "model_index.json", scheduler=["diffusers", "EulerDiscreteScheduler"])
    elif damage == "index":
        (folder / "model_index.json").write_text("{")
    elif damage == "missing":
        del weights["conv_in2.weight"]
        save(folder, weights)
    elif damage == "left over":
        save(folder, weights | {"stranger": torch.zeros(1)})
    elif damage == "shape":
        save(folder, weights | {"conv_in.weight": torch.zeros(4, 5, 3, 3)})
    elif damage == "option":
        edit(folder / "unet" / "config.json", surprise=1)
    elif damage == "garbage":
        file.write_bytes(b"PK\x03\x04 no weights")
    elif damage == "gone":
        file.unlink()
    else:
        vae = {name: tensor for name, tensor in pipe.vae.state_dict().items() if not name.startswith("quant_conv")}
        (part,) = (folder / "vae").glob("diffusion_pytorch_model.*")
        from safetensors.torch import save_file

        torch.save(vae, part) if part.suffix == ".bin" else save_file(vae, part)
    with pytest.raises(ValueError, match=message) as error:
        load_original(folder)
    assert "\n" not in str(error.value)


def test_weights_that_would_run_code_are_not_loaded(original, tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, ("raise SystemExit('a pickle was run')",))

    folder = shutil.copytree(original, tmp_path / "bin")
    for file in (folder / "unet").glob("diffusion_pytorch_model.*"):
        file.unlink()
    torch.save({"conv_in.weight": Evil()}, folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match=r"a pickle that asks for .*exec, more than plain tensors: refused"):
        load_original(folder)
