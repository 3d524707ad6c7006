"""LTX-Video and Wan 2.2 5B: one step of our view is one step of diffusers' own call."""

from functools import partial

import numpy as np
import pytest
import torch
from diffusers import LTXPipeline
from einops import rearrange

from tests.tiny.model import noise, photo
from tests.train.tiny_ltx import tiny_ltx
from tests.train.tiny_wan import tiny_wan
from unleak.families.first_frame import begun_with, times_of_tokens
from unleak.families.view import Levels, view_class

PROMPT, RATE = "a dog runs", 24
BUILD = {
    "ltx": tiny_ltx,
    "ltx since 0.9.5": partial(tiny_ltx, since_095=True),
    "wan 5b": partial(tiny_wan, "5b"),
}


def test_the_first_frame_and_the_times_in_closed_form():
    x_t, image = torch.zeros(2, 1, 3, 1, 1), torch.ones(2, 1, 1, 1, 1)
    assert begun_with(image, x_t).flatten(1).tolist() == [[1, 0, 0]] * 2
    assert not x_t.any()
    times = times_of_tokens(torch.tensor([900.0, 500.0]), torch.tensor([0.0, 30.0]), frames=3, each=2)
    assert times.tolist() == [[0, 0, 900, 900, 900, 900], [30, 30, 500, 500, 500, 500]]


@pytest.fixture
def watch():
    """A function: the calls of a network from now on, their arguments and what came out."""
    handles = []

    def begin(network):
        calls = []

        def keep(module, args, kwargs, out):
            calls.append({name: value for name, value in kwargs.items() if value is not None} | {"out": out[0]})

        handles.append(network.register_forward_hook(keep, with_kwargs=True))
        return calls

    yield begin
    for handle in handles:
        handle.remove()


def rotary(network, call):
    """What the places of the tokens become in the network."""
    names = ("num_frames", "height", "width", "rope_interpolation_scale", "video_coords")
    return network.rope(call["hidden_states"], **{name: call[name] for name in names if name in call})


def sampled(pipe, **changes):
    """The pipeline's own latents, unguided."""
    size = {"height": 64, "width": 32, "num_frames": 9, "num_inference_steps": 3}
    pipe.set_progress_bar_config(disable=True)
    call = {"prompt": PROMPT, "guidance_scale": 1.0, "generator": noise(), "output_type": "latent", **size}
    if "Wan" not in type(pipe).__name__:
        call |= {"frame_rate": RATE}
    return pipe(**call | changes).frames


@pytest.mark.parametrize("name", BUILD)
@torch.no_grad()
def test_one_step_is_the_pipelines(name, watch):
    pipe = BUILD[name]()
    view = view_class(type(pipe).__name__)(pipe)
    image, changes = photo(64, 32), {"image_cond_noise_scale": 0.0} if "0.9.5" in name else {}
    calls = watch(pipe.transformer)
    sampled(pipe, image=image, **changes)
    theirs, sigmas = list(calls), pipe.scheduler.sigmas
    assert len(theirs) == 3
    seen = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1
    still = view.encode_still(seen, 9)
    text = view.encode_text([PROMPT])
    for step, call in enumerate(theirs):
        packed = call["hidden_states"].ndim == 3
        f, h, w = (3, 4, 2) if packed else call["hidden_states"].shape[2:]

        def unpacked(tokens, f=f, h=h, packed=packed):
            return rearrange(tokens, "b (f h w) c -> b c f h w", f=f, h=h) if packed else tokens

        x_t = unpacked(call["hidden_states"])
        condition = view.condition(x_t[:, :, :1] if packed else still, text, seen, fps=torch.tensor([float(RATE)]))
        sigma = call["timestep"].float().max()[None] / 1000
        x_0 = view.predict_clean(x_t, Levels(1 - sigma, sigma), condition)
        ours = calls[-1]
        torch.testing.assert_close(ours["hidden_states"], call["hidden_states"])
        torch.testing.assert_close(ours["timestep"], call["timestep"].float())
        assert (ours["timestep"][0, : h * w if packed else h * w // 4] == 0).all()
        there = call.get("encoder_attention_mask", torch.ones(1, 1)).bool()
        if packed:
            assert torch.equal(ours["encoder_attention_mask"], there)
            assert 0 < there.sum() < there.numel()
            for ours_, theirs_ in zip(rotary(pipe.transformer, ours), rotary(pipe.transformer, call), strict=True):
                assert torch.equal(ours_, theirs_)
        words = there[..., None] * call["encoder_hidden_states"]
        torch.testing.assert_close(ours["encoder_hidden_states"], words)
        torch.testing.assert_close(ours["out"], call["out"], atol=1e-5, rtol=1e-5)
        assert torch.equal(x_0[:, :, :1], condition.latents)
        if packed and step < 2:  # the Euler step; UniPC's has a memory
            following = x_0 + sigmas[step + 1] / sigmas[step] * (x_t - x_0)
            torch.testing.assert_close(following, unpacked(theirs[step + 1]["hidden_states"]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_without_an_image_ltx_is_its_text_to_video_pipeline(watch):
    from dataclasses import replace

    pipe = tiny_ltx()
    view = view_class(type(pipe).__name__)(pipe)
    calls = watch(pipe.transformer)
    sampled(LTXPipeline(**pipe.components))
    for call in calls[:3]:
        x_t = rearrange(call["hidden_states"], "b (f h w) c -> b c f h w", f=3, h=4)
        given = view.condition(x_t[:, :, :1], view.encode_text([PROMPT]), torch.zeros(1, 3, 64, 32), fps=FPS)
        got = view.velocity(x_t, call["timestep"] / 1000, replace(given, latents=None))
        out = rearrange(call["out"], "b (f h w) c -> b c f h w", f=3, h=4)
        torch.testing.assert_close(got, out, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(view.velocity(x_t, call["timestep"] / 1000, given), out, atol=1e-3)


FPS = torch.tensor([float(RATE)])


@torch.no_grad()
def test_each_clip_has_a_rate_of_its_own(watch):
    pipe = tiny_ltx()
    view = view_class(type(pipe).__name__)(pipe)
    x_t, text = torch.randn(2, 8, 3, 4, 2, generator=noise()), view.encode_text([PROMPT, "a dog"])
    image, sigma = torch.zeros(2, 3, 64, 32), torch.tensor([0.9, 0.4])

    def predicted(chosen, rates):
        condition = view.condition(x_t[chosen, :, :1], text[chosen], image[chosen], fps=torch.tensor(rates))
        return view.velocity(x_t[chosen], sigma[chosen], condition)

    together = predicted([0, 1], [24.0, 8.0])
    for k, rate in enumerate((24.0, 8.0)):
        torch.testing.assert_close(together[k : k + 1], predicted([k], [rate]))
        assert not torch.allclose(predicted([k], [rate]), predicted([k], [2 * rate]))


@pytest.mark.parametrize(("tokens", "shift"), [(1024, np.exp(0.95)), (4096, np.exp(2.05)), (2560, np.exp(1.5))])
def test_more_tokens_shift_more(tokens, shift):
    view = view_class("LTXImageToVideoPipeline")(tiny_ltx())
    assert view.shift(tokens // 64, 8, 8) == pytest.approx(shift)
    assert view_class("LTXConditionPipeline")(tiny_ltx(since_095=True)).shift(tokens // 64, 8, 8) == 1.0
