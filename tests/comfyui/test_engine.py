"""unleak's nodes in the real ComfyUI: what the sampler and the denoiser are given."""

import math
from itertools import product

import pytest
import torch

from tests.comfyui.engine.client import Graph
from tests.comfyui.workflows import TINY, conditioned, loaded, noise, sampled

NODES = {
    "UnleakMotion": ["model", "motion"],
    "UnleakStart": ["model", "start", "mode", "init", "moments"],
    "UnleakStartSigmas": ["model", "sigmas", "start", "mode"],
    "UnleakNano": [],
    "UnleakLowPass": ["model", "factor", "share"],
    "UnleakConditionNoise": ["model", "beta", "share", "seed"],
    "UnleakGuidanceInterval": ["model", "low", "high"],
    "UnleakMotionScore": ["image"],
    "UnleakMoments": ["model", "vae", "name", "num_frames", "folder", "width", "height", "fps", "existing", "images"],
}


def recorded(engine, name, tiny, attach, *, parts=None, **settings):
    """Run a KSampler on a tiny model that `attach` has changed; return what the denoiser was given, and the latents."""
    g = Graph()
    model = attach(g, loaded(g, tiny)[0])
    model = g("TestRecord", model=model, name=name)[0]
    latents = sampled(g, model, (parts or conditioned)(g, tiny), **settings)
    g("TestSave", latent=latents, name=f"{name}/latents/1")
    engine.run(g)
    return engine.calls(name), engine.saved(f"{name}/latents/1")["samples"]


def plain(g, model):
    return model


def start(text, mode="rescale", init="unit", moments="none"):
    def attach(g, model):
        return g("UnleakStart", model=model, start=text, mode=mode, init=init, moments=moments)[0]

    return attach


def motion(choice):
    return lambda g, model: g("UnleakMotion", model=model, motion=choice)[0]


def test_every_node_is_registered_with_help_on_every_input(engine):
    for name, inputs in NODES.items():
        (about,) = engine.get(f"/object_info/{name}").values()
        held = {**about["input"].get("required", {}), **about["input"].get("optional", {})}
        assert [*about["input_order"].get("required", []), *about["input_order"].get("optional", [])] == inputs
        assert about["category"].split("/")[0] == "unleak"
        assert about["description"]
        for spec in held.values():
            assert spec[1]["tooltip"]
        assert all(about["output_tooltips"])
    assert "Cannot import" not in "".join(line for line in engine.said().splitlines() if "unleak" in line)


@pytest.mark.parametrize("tiny", ["wan21", "wan22_5b", "ltxv", "hunyuan", "hunyuan_v2"])
def test_off_and_the_full_start_change_no_bit(engine, tiny):
    before, latents = recorded(engine, f"plain-{tiny}", tiny, plain)
    for name, attach in (("off", motion("off")), ("full", start("1.0T")), ("standard", start("1000", init="standard"))):
        after, same = recorded(engine, f"{name}-{tiny}", tiny, attach)
        assert torch.equal(latents, same)
        assert all(torch.equal(a["x"], b["x"]) for a, b in zip(before, after, strict=True))


FLOW = ["wan21", "wan22_5b", "ltxv", "hunyuan", "hunyuan_v2"]


@pytest.mark.parametrize(("tiny", "init"), product(FLOW, ["unit", "standard"]))
def test_a_flow_starts_at_the_level_and_noise_asked_for(engine, tiny, init):
    sigma = 0.9
    calls, _ = recorded(engine, f"start-{tiny}-{init}", tiny, start("sigma=0.9", init=init))
    assert calls[0]["sigma"].unique().item() == pytest.approx(sigma, abs=1e-6)
    eps = noise(TINY[tiny].shape)
    wanted = eps * (1.0 if init == "standard" else math.hypot(sigma, 1 - sigma))
    made = calls[0]["x"][:1]
    if TINY[tiny].mask:  # the first frame is held
        made, wanted = made[:, :, 1:], wanted[:, :, 1:]
    assert torch.allclose(made, wanted, atol=1e-6)


@pytest.mark.parametrize("tiny", ["wan22_5b", "ltxv", "hunyuan_v2"])
def test_the_image_held_by_a_mask_stays(engine, tiny):
    """The first frame is what it is in a plain run at that level."""
    name = f"masked-{tiny}"
    calls, latents = recorded(engine, name, tiny, start("sigma=0.9"))
    _, before = recorded(engine, f"{name}-plain", tiny, plain)
    assert torch.allclose(latents[:, :, 0], before[:, :, 0], atol=1e-5)
    assert not torch.allclose(latents[:, :, 1:], before[:, :, 1:], atol=1e-2)
    frames = [call["x"][:, :, 0] for call in calls]
    assert all(torch.allclose(frame, frames[0]) for frame in frames)
