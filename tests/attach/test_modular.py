"""Modular pipelines: the promises of `unleak.apply` for each, and what guiders make of strategies."""

from typing import Any

import pytest
import torch
from diffusers import WanImage2VideoAutoBlocks
from PIL import Image

import unleak
from tests.attach.watch import Watched
from tests.tiny import modular
from unleak.attach.plan import UnleakWarning
from unleak.attach.seams import REFUSED, SEAMS, seam_of

pytestmark = pytest.mark.filterwarnings("ignore::unleak.attach.plan.UnleakWarning")

MODULAR = {tiny.name: tiny for tiny in modular.MODULAR}
SIGMA = 0.8


def call(name: str, pipe: Any, **changes: Any) -> torch.Tensor:
    return MODULAR[name].call(pipe, **{"num_inference_steps": 9} | changes)  # few steps keep to their own levels


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["rescale", "truncate"])
@pytest.mark.parametrize("name", MODULAR)
def test_promises(name: str, mode: str) -> None:
    """Plain at full start; the level; the initial noise; repeatable; as it was once it is removed."""
    tiny, pipe = MODULAR[name], MODULAR[name].build()
    before, plain, seen = set(vars(pipe)), call(name, pipe), Watched(tiny, tiny.build(), num_inference_steps=9)
    assert torch.equal(call(name, unleak.apply(pipe, start="1.0T", mode=mode)), plain)
    unleak.apply(pipe, start=f"sigma={SIGMA}", init="unit", mode=mode)
    shown = Watched(tiny, pipe, num_inference_steps=9)
    assert shown.timestep == pytest.approx(1000 * SIGMA, rel=1e-3)
    expected = (SIGMA**2 + (1 - SIGMA) ** 2) ** 0.5 * seen.eps
    if name == "modular-ltx":  # frame 0 is the image
        assert torch.equal(shown.prepared[0][:, :, :1], seen.prepared[0][:, :, :1])
        expected[:, :, :1] = seen.prepared[0][:, :, :1]
    torch.testing.assert_close(shown.prepared[0], expected, rtol=1e-5, atol=1e-5)
    once = call(name, pipe)
    assert torch.equal(call(name, pipe), once)
    assert not torch.equal(once, plain)
    unleak.remove(pipe)
    assert set(vars(pipe)) == before
    assert torch.equal(call(name, pipe), plain)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        ("modular-wan21", unleak.LowPass()),
        ("modular-wan21", unleak.ConditionNoise(0.5)),
        ("modular-wan21", unleak.MotionAmplitude(2.0)),
        ("modular-wan22", unleak.ReferenceBias(2.0)),
        ("modular-hunyuan15", unleak.ReferenceBias(2.0)),
        ("modular-ltx", unleak.ReferenceBias(2.0)),
        ("modular-ltx", unleak.Compress(45)),
    ],
    ids=repr,
)
def test_strategies_act(name: str, strategy: Any) -> None:
    pipe = MODULAR[name].build()
    plain = call(name, pipe)
    made = call(name, unleak.apply(pipe, start="1.0T", strategies=strategy))
    assert torch.isfinite(made).all()
    assert not torch.equal(made, plain)
    assert torch.equal(call(name, unleak.remove(pipe)), plain)


def test_few_steps_keep_to_their_levels() -> None:
    name = "modular-ltx"
    pipe = unleak.apply(MODULAR[name].build(), start=f"sigma={SIGMA}", init="unit")
    with pytest.warns(UnleakWarning, match="3 of 4 steps are run"):
        call(name, pipe, num_inference_steps=4)


def test_every_modular_video_pipeline_has_a_seam_or_a_reason() -> None:
    import diffusers

    names = diffusers._import_structure["modular_pipelines"]
    video = ("Wan", "LTX", "Hunyuan", "Helios", "Cosmos", "MiniMaxH3")
    known = [name for name in names if name.endswith("ModularPipeline") and name.startswith(video)]
    assert {"WanImage2VideoModularPipeline", "LTXModularPipeline", "MiniMaxH3ModularPipeline"} <= set(known)
    for name in known:
        cls = getattr(diffusers, name)
        assert any(base.__name__ in SEAMS or base.__name__ in REFUSED for base in cls.__mro__), name


def test_a_modular_pipeline_that_is_not_known_says_what_to_do() -> None:
    from diffusers import FluxModularPipeline, WanBlocks

    with pytest.raises(ValueError, match=r"knows no block of this modular pipeline.*register a seam whose `draws`"):
        seam_of(object.__new__(FluxModularPipeline))
    with pytest.raises(ValueError, match="it makes videos of a text"):
        unleak.apply(WanBlocks().init_pipeline())
    with pytest.raises(ValueError, match="has no scheduler yet: load its components first"):
        unleak.apply(WanImage2VideoAutoBlocks().init_pipeline())


def test_a_modular_pipeline_keeps_its_blocks_and_takes_arguments_from_a_state() -> None:
    from diffusers.modular_pipelines.modular_pipeline import PipelineState

    pipe = MODULAR["modular-ltx"].build()
    blocks, before = pipe._blocks, set(vars(pipe))
    unleak.apply(pipe, start="sigma=0.8", init="unit", strategies=unleak.Compress(33))
    made = call("modular-ltx", pipe)
    state = PipelineState()
    state.set("image", Image.new("RGB", (32, 64)))
    assert call("modular-ltx", pipe, state=state).equal(made)  # a keyword counts more
    assert (pipe._blocks is blocks, set(vars(pipe))) == (True, before)
    unleak.remove(pipe)
    assert not call("modular-ltx", pipe).equal(made)


@pytest.mark.parametrize("guider", ["SkipLayerGuidance", "AdaptiveProjectedGuidance", "ClassifierFreeZeroStarGuidance"])
def test_strategies_with_other_guiders(guider: str) -> None:
    """Outside the interval the guider is given the conditional prediction in the place of all others."""
    import diffusers

    own = {"skip_layer_guidance_layers": [0], "skip_layer_guidance_scale": 2.0} if guider.startswith("Skip") else {}
    many = {"num_inference_steps": 9}
    pipes = [MODULAR["modular-wan21"].build() for _ in range(2)]
    for pipe in pipes:
        pipe.update_components(guider=getattr(diffusers, guider)(guidance_scale=3.0, **own))
    free = call("modular-wan21", pipes[0], **many)
    never = unleak.GuidanceInterval(high="sigma=0.002")
    fixed = call("modular-wan21", unleak.apply(pipes[1], start="1.0T", strategies=never), **many)
    assert not fixed.equal(free)
    for pipe in pipes:
        pipe.update_components(guider=diffusers.ClassifierFreeGuidance(guidance_scale=1.0))
    unguided = call("modular-wan21", pipes[0], **many)
    if "Zero" not in guider:  # which predicts zero in the first step, whatever the guidance
        torch.testing.assert_close(fixed, unguided, rtol=1e-4, atol=1e-4)
