"""The pipelines of DynamiCrafter and VideoCrafter1, tiny: what is asked of any diffusers pipeline, and of these."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

import unleak
from tests.tiny.lvdm import FRAMES, build_dynamicrafter, build_videocrafter1, call
from tests.tiny.model import noise, photo
from unleak.families.dynamicrafter.view import DynamiCrafterView
from unleak.families.lvdm.pipeline import Branches
from unleak.families.videocrafter1.view import VideoCrafter1View

BUILDERS = {
    "dynamicrafter": build_dynamicrafter,
    "videocrafter1": build_videocrafter1,
    "videocrafter1-linear": lambda: build_videocrafter1(linear=True),
}
both = pytest.mark.parametrize("name", list(BUILDERS)[:2])


def spied(pipe):
    """Keywords of every evaluation of the network, its sample among them."""
    seen = []
    pipe.unet.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs | {"sample": args[0].clone()}), with_kwargs=True
    )
    return seen


def settings(scheduler):
    return {name: value for name, value in scheduler.config.items() if not name.startswith("_")}


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * b.abs().max().item())


def test_guidance_is_the_published_combination():
    u, i, c = torch.randn(3, 2, 4, 3, 5, 5, generator=noise(), dtype=torch.float64)
    torch.testing.assert_close(Branches(7.5, None, 0.0).combine([u, c]), u + 7.5 * (c - u))
    torch.testing.assert_close(Branches(7.5, 2.0, 0.0).combine([u, i, c]), u + 2 * (i - u) + 7.5 * (c - i))
    rescaled = Branches(7.5, None, 1.0).combine([u, c])
    torch.testing.assert_close(rescaled.flatten(1).std(1), c.flatten(1).std(1))
    assert Branches(1.0, None, 0.7).combine([c]) is c


@pytest.mark.parametrize("name", BUILDERS)
def test_a_saved_pipeline_is_the_same_and_every_kind_of_output_too(name, tmp_path):
    pipe = BUILDERS[name]()
    latents = call(pipe)
    assert (latents.shape, latents.dtype) == ((1, 4, FRAMES, 8, 12), torch.float32)
    pipe.save_pretrained(tmp_path / "pipe")
    again = type(pipe).from_pretrained(tmp_path / "pipe")
    again.set_progress_bar_config(disable=True)
    assert torch.equal(call(again), latents)
    assert settings(again.scheduler) == settings(pipe.scheduler)
    video = pipe.video_processor.postprocess_video(pipe.decode_latents(latents), output_type="np")
    assert np.array_equal(call(pipe, output_type="np"), video)
    torch.testing.assert_close(call(pipe, output_type="pt"), torch.from_numpy(video).permute(0, 1, 4, 2, 3))
    frames = call(pipe, output_type="pil", return_dict=True)[0]
    assert [frame.size for frame in frames] == [(24, 16)] * FRAMES
    assert np.array_equal(np.asarray(frames[1]), (video[0, 1] * 255).round().astype(np.uint8))
    close(pipe.decode_latents(latents, chunk=1), pipe.decode_latents(latents))


@both
def test_images_of_every_kind_are_the_same_image(name):
    pipe, image = BUILDERS[name](), photo(16, 24)
    array = np.asarray(image, dtype=np.float32) / 255
    wanted = call(pipe, image=image, num_inference_steps=1)
    for same in ([image], array, torch.from_numpy(array).permute(2, 0, 1)):
        close(call(pipe, image=same, num_inference_steps=1), wanted)
    assert not torch.equal(call(pipe, image=photo(16, 24, seed=9), num_inference_steps=1), wanted)


@both
def test_a_batch_is_its_videos(name):
    """Prompts, images and generators of each; several videos of a prompt; one image or one prompt for all."""
    pipe, images = BUILDERS[name](), [photo(16, 24), photo(16, 24, seed=6)]
    prompts, seeds = ["a dog runs", "a dog"], lambda *numbers: [noise(number) for number in numbers]
    alone = {
        (i, p, seed): call(pipe, image=images[i], prompt=prompts[p], generator=noise(seed), num_inference_steps=2)
        for i, p, seed in [(0, 0, 0), (1, 1, 1), (1, 0, 1), (0, 1, 1)]
    }
    runs = [
        ({"image": images, "prompt": prompts}, [(0, 0, 0), (1, 1, 1)]),
        ({"image": images, "prompt": prompts[0]}, [(0, 0, 0), (1, 0, 1)]),
        ({"image": images[0], "prompt": prompts}, [(0, 0, 0), (0, 1, 1)]),
    ]
    for arguments, expected in runs:
        made = call(pipe, **arguments, generator=seeds(0, 1), num_inference_steps=2)
        close(made, torch.cat([alone[key] for key in expected]))
    made = call(pipe, num_videos_per_prompt=2, generator=seeds(0, 1), num_inference_steps=2)
    close(made[:1], alone[0, 0, 0])
    assert not torch.allclose(made[0], made[1])


@both
def test_one_batched_evaluation_a_step_or_one_of_each_branch(name):
    pipe = BUILDERS[name]()
    seen = spied(pipe)
    for count, arguments in ((1, {"guidance_scale": 1.0}), (2, {}), (3, {"image_guidance_scale": 2.0})):
        seen.clear()
        batched = call(pipe, num_inference_steps=2, **arguments)
        assert [len(given["sample"]) for given in seen] == [count] * 2
        pipe.enable_guidance_slicing()
        seen.clear()
        close(call(pipe, num_inference_steps=2, **arguments), batched)
        assert [len(given["sample"]) for given in seen] == [1] * 2 * count
        pipe.disable_guidance_slicing()


def test_what_dynamicrafter_is_told():
    pipe = build_dynamicrafter()
    seen = spied(pipe)
    call(pipe, num_inference_steps=1, fps=12)
    (first,) = seen
    image = first["sample"][:, 4:]
    assert torch.equal(image[0], image[1])  # the image is not dropped from the unconditional branch
    assert torch.equal(image[:, :, 0], image[:, :, 3])
    assert torch.equal(first["fps"], torch.full((2,), 12.0))
    assert first["encoder_hidden_states"].shape == (2, 8 + 2 * FRAMES, 8)
    assert not torch.equal(*first["encoder_hidden_states"][:, 8:])
    call(pipe, num_inference_steps=1, num_frames=3)
    assert torch.equal(seen[1]["encoder_hidden_states"], first["encoder_hidden_states"][:, : 8 + 2 * 3])
    assert seen[1]["fps"] is None

    last = photo(16, 24, seed=9)
    call(pipe, num_inference_steps=1, last_image=last)
    call(pipe, num_inference_steps=1, image=last)
    between = seen[2]["sample"][:, 4:]
    assert between[:, :, 1:-1].abs().max() == 0
    close(between[:, :, 0], image[:, :, 0])
    assert (between[:, :, -1] - seen[3]["sample"][:, 4:, -1]).abs().mean() < 0.2 * between[:, :, -1].abs().mean() + 0.2
    call(pipe, num_inference_steps=1, loop=True)
    loop = seen[4]["sample"][:, 4:]
    assert loop[:, :, 1:-1].abs().max() == 0
    assert loop[:, :, -1].abs().max() > 0


def test_a_network_of_frame_strides_is_told_those():
    pipe = build_dynamicrafter(condition_on="frame_stride")
    seen = spied(pipe)
    call(pipe, num_inference_steps=1, frame_stride=3)
    assert torch.equal(seen[0]["fps"], torch.full((2,), 3.0))


def test_what_videocrafter1_is_told():
    pipe = build_videocrafter1()
    seen = spied(pipe)
    call(pipe, num_inference_steps=1)
    assert seen[0]["sample"].shape[1] == 4
    assert torch.equal(seen[0]["fps"], torch.full((2,), 24.0))
    assert seen[0]["encoder_hidden_states"].shape == (2, 8 + 2, 8)


@both
def test_latents_embeddings_callbacks_and_interruption(name):
    pipe = BUILDERS[name]()
    x = torch.randn(1, 4, FRAMES, 8, 12, generator=noise(4))
    first = []

    def on_step(pipe, step, timestep, tensors):
        first.append((step, int(timestep), set(tensors)))
        if step == 1:
            pipe._interrupt = True
        return {"latents": tensors["latents"] * 0 + 7} if step == 1 else {}

    asked = ["latents", "encoder_hidden_states"]
    out = call(pipe, latents=x, callback_on_step_end=on_step, callback_on_step_end_tensor_inputs=asked)
    assert torch.equal(out, torch.full_like(x, 7))
    assert [step for step, *_ in first] == [0, 1]
    assert first[0][2] == set(asked)
    embeds = {"prompt_embeds": pipe.encode_prompt("a dog runs"), "negative_prompt_embeds": pipe.encode_prompt("")}
    assert torch.equal(call(pipe, prompt=None, **embeds), call(pipe))
    assert not torch.equal(call(pipe, negative_prompt="a dog"), call(pipe))


@both
def test_eta_zero_draws_nothing_and_another_scheduler_may_take_over(name):
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    pipe, x = BUILDERS[name](), torch.randn(1, 4, FRAMES, 8, 12, generator=noise(4))
    generator = noise()
    call(pipe, latents=x, eta=0.0, generator=generator)
    expected = noise()
    if name == "dynamicrafter":
        torch.randn(1, 4, 8, 12, generator=expected)  # of the image's posterior
    assert torch.equal(generator.get_state(), expected.get_state())
    config = pipe.scheduler.config
    shared = {key: config[key] for key in ("beta_start", "beta_end", "prediction_type", "rescale_betas_zero_snr")}
    for cls in (DDIMScheduler, DPMSolverMultistepScheduler):
        pipe.scheduler = cls(**shared, beta_schedule="scaled_linear")
        assert call(pipe).isfinite().all()


@both
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": None}, "image is missing: give a PIL image"),
        ({"prompt": None}, "the prompt is missing: say what happens, or give ''"),
        ({"height": 18}, "height and width 18x24: this network takes multiples of 4, such as 16x24"),
        ({"num_frames": FRAMES + 1}, f"num_frames {FRAMES + 1}: this network was trained on {FRAMES} frames"),
        ({"output_type": "gif"}, "output_type 'gif' is unknown: give pil, np, pt or latent"),
        ({"latents": torch.zeros(1, 4, 4, 8, 8)}, r"latents are \[1, 4, 4, 8, 8\], but this call needs"),
        ({"prompt": ["a", "dog"], "image": [photo(16, 24)] * 3}, "3 images and 2 prompts: give one of either"),
        ({"generator": [noise()] * 3}, "3 generators for 1 videos: give one for each"),
        ({"negative_prompt": ["a", "dog"]}, "2 negative prompts for 1 videos"),
        ({"callback_on_step_end_tensor_inputs": ["image"]}, "callback_on_step_end_tensor_inputs: image unknown"),
        ({"prompt_embeds": torch.zeros(1, 8, 8)}, "prompt and prompt_embeds are both given"),
    ],
)
def test_what_cannot_be_done_is_said(name, changes, reason):
    with pytest.raises(ValueError, match=reason):
        call(BUILDERS[name](), **changes)


@pytest.mark.parametrize(
    ("config", "changes", "reason"),
    [
        ({}, {"frame_stride": 3}, "frame_stride=3: this network is told the fps; give that instead"),
        ({"condition_on": "frame_stride"}, {"fps": 8}, "fps=8: this network is told the frame_stride"),
        ({}, {"loop": True, "last_image": photo(16, 24)}, "loop ends the video with image"),
        ({"condition_on": "speed"}, {}, "condition_on 'speed' is unknown: give fps or frame_stride"),
    ],
)
def test_what_dynamicrafter_cannot_do_is_said(config, changes, reason):
    with pytest.raises(ValueError, match=reason):
        call(build_dynamicrafter(**config), **changes)


@both
def test_strategies_are_refused_where_they_would_change_something_else(name):
    pipe = unleak.apply(BUILDERS[name](), strategies=[unleak.GuidanceInterval(high="500")])
    with pytest.raises(ValueError, match="three branches: leave image_guidance_scale away"):
        call(pipe, image_guidance_scale=2.0)
    if name == "dynamicrafter":
        with pytest.raises(ValueError, match="not on every frame: leave loop and last_image away"):
            call(pipe, loop=True)
    batched = call(pipe)
    pipe.enable_guidance_slicing()
    close(call(pipe), batched)


def test_a_copy_is_sliced_apart():
    pipe = build_videocrafter1()
    other = copy.deepcopy(pipe)
    other.enable_guidance_slicing()
    assert (pipe.guidance_slicing, other.guidance_slicing) == (False, True)


# The views


@both
@torch.no_grad()
def test_the_view_sees_what_the_pipeline_sees(name):
    """And predicts the clean video that the scheduler's step does."""
    pipe = BUILDERS[name]()
    view = {"dynamicrafter": DynamiCrafterView, "videocrafter1": VideoCrafter1View}[name](pipe, {"fps": 24})
    image = photo(16, 24)
    pixels = pipe.video_processor.preprocess(image, height=16, width=24)
    condition = view.encode_condition(pixels, ["a dog runs"], FRAMES)
    x, steps = torch.randn(1, 4, FRAMES, 8, 12, generator=noise(4)), []
    plain = pipe.scheduler.step
    pipe.scheduler.step = lambda *args, **kwargs: steps.append((args, plain(*args, **kwargs))) or steps[-1][1]
    # The pipeline samples the image's latents, the view takes the mode.
    pipe.encode_latents = lambda *args, plain=pipe.encode_latents, **kwargs: plain(*args, **kwargs | {"sample": False})
    call(pipe, latents=x, fps=24, guidance_scale=1.0, num_inference_steps=2)
    (_, t, _), (_, x_0) = steps[1]
    x_t = steps[1][0][2]
    close(view.predict_clean(x_t, view.levels_at(t[None]), condition), x_0)


@both
@torch.no_grad()
def test_conditions_noised_and_dropped(name):
    pipe = BUILDERS[name]()
    view = {"dynamicrafter": DynamiCrafterView, "videocrafter1": VideoCrafter1View}[name](pipe)
    pixels = torch.rand(2, 3, 16, 24, generator=noise()) * 2 - 1
    clean = view.encode_condition(pixels, ["", ""], FRAMES)
    noisy = view.noise_condition(clean, view.levels_at(torch.tensor([999, 999])), noise())
    assert torch.equal(noisy.text, clean.text)
    if name == "dynamicrafter":
        assert torch.equal(noisy.image, clean.image)
        added = noisy.latents - clean.latents
        assert not torch.allclose(added[:, :, 0], added[:, :, 1])  # every frame on its own
    else:
        assert noisy.latents is None
        assert not torch.allclose(noisy.image, clean.image)
    half = view.encode_condition(pixels, ["", ""], FRAMES, image_dropped=torch.tensor([True, False]))
    blank = view.encode_condition(torch.zeros(2, 3, 16, 24), ["", ""], FRAMES)
    close(half.image[0], blank.image[0])
    close(half.image[1], clean.image[1])
    with pytest.raises(ValueError, match="3 prompts for 2 images"):
        view.encode_condition(pixels, ["a"] * 3, FRAMES)
    video = pixels[:, None].expand(-1, 3, -1, -1, -1)
    mean, spread = view.encode_posterior(video)
    assert mean.shape == (2, 4, 3, 8, 12)
    assert torch.equal(mean, view.encode_video(video))
    drawn = torch.randn(6, 4, 8, 12, generator=noise(3)).unflatten(0, (2, 3)).transpose(1, 2)
    close(mean + spread * drawn, view.encode_video(video, sample=True, generator=noise(3)))


def test_an_image_too_small_for_clip_is_no_matter():
    assert call(build_videocrafter1(), image=Image.new("RGB", (5, 3)), num_inference_steps=1).isfinite().all()
