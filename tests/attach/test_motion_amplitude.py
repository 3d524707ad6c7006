"""PainterI2V's arithmetic against its formula, and where it acts."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import unleak
from tests.attach.guided import ALL, BATCHED, Run
from unleak.attach.strategies.motion_amplitude import amplified

pytestmark = pytest.mark.filterwarnings("ignore::unleak.attach.plan.UnleakWarning")
WAN = ["wan21", "wan22", "chronoedit", "skyreels-v2"]


def test_the_arithmetic_is_that_of_the_formula() -> None:
    latents = 2 * torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = amplified(latents, 1.4)
    for clip in range(2):
        for channel in range(3):
            base = latents[clip, channel, 0]
            assert torch.equal(ours[clip, channel, 0], base)
            for frame in range(1, 4):
                d = latents[clip, channel, frame] - base
                expected = (base + 1.4 * (d - d.mean()) + d.mean()).clamp(-6, 6)
                torch.testing.assert_close(ours[clip, channel, frame], expected)
    assert torch.equal(amplified(latents.transpose(1, 2), 1.4, frames=1).transpose(1, 2), ours)
    torch.testing.assert_close(
        amplified(latents, 1.0), torch.cat([latents[:, :, :1], latents[:, :, 1:].clamp(-6, 6)], 2)
    )


def test_a_scale_or_an_offset_of_a_channel_changes_nothing_of_it() -> None:
    latents = 0.3 * torch.randn(1, 2, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scale, offset = torch.tensor([0.5, 2.0]).view(1, 2, 1, 1, 1), torch.tensor([0.1, -0.4]).view(1, 2, 1, 1, 1)
    torch.testing.assert_close(amplified(scale * latents + offset, 1.2), scale * amplified(latents, 1.2) + offset)


@pytest.mark.parametrize("name", WAN)
def test_every_evaluation_sees_the_amplified_condition(name: str, held: Callable[[str, Any, str], None]) -> None:
    plain, pipe = Run(name, ALL[name].build()), ALL[name].build()
    ours = Run(name, unleak.apply(pipe, strategies=[unleak.MotionAmplitude(1.3)]))
    assert len(ours.calls) == len(plain.calls)
    channels = pipe.vae.config.z_dim
    for i in range(2):  # both branches of the first step
        expected = plain.input(i).clone()
        expected[:, -channels:] = amplified(expected[:, -channels:], 1.3)
        assert torch.equal(ours.input(i), expected)
    assert not torch.equal(ours.result, plain.result)
    assert name not in BATCHED
    unleak.apply(pipe, strategies=[unleak.MotionAmplitude(1.0)])
    assert torch.equal(Run(name, pipe).result, plain.result)
    assert torch.equal(Run(name, unleak.remove(pipe)).result, plain.result)
    held(name, pipe, "motion amplitude")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wan22-5b", "its photo is the first frame of the video itself"),
        ("svd", "it needs a condition of the photo followed by encoded blank frames"),
        ("cogvideox-ddim", "cannot be attached to CogVideoXImageToVideoPipeline"),
        ("ltx", "cannot be attached to LTXImageToVideoPipeline"),
    ],
)
def test_elsewhere_it_is_refused(name: str, message: str) -> None:
    pipe = ALL[name].build()
    with pytest.raises(ValueError, match=message):
        unleak.apply(pipe, strategies=[unleak.MotionAmplitude()])
    assert not hasattr(type(pipe), "_unleak_plan")


def test_a_last_image_and_senseless_amounts_are_refused() -> None:
    from tests.tiny.model import photo

    pipe = unleak.apply(ALL["wan21"].build(), strategies=[unleak.MotionAmplitude()])
    with pytest.raises(ValueError, match="would change the last image too"):
        ALL["wan21"].call(pipe, last_image=photo(32, 32))
    for amount in (-1, 11, float("nan")):
        with pytest.raises(ValueError, match="amount between 0 and 10"):
            unleak.MotionAmplitude(amount)
