from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import unleak
from tests.attach.guided import ALL, BATCHED, GUIDED, GUIDING, UNGUIDED, Run, W, same_seed
from unleak.attach.schedule import process_of
from unleak.attach.strategies.low_pass import down_up, gaussian
from unleak.attach.strategies.registry import parse_fix

pytestmark = pytest.mark.filterwarnings("ignore::unleak.attach.plan.UnleakWarning")

each = pytest.mark.parametrize("name", GUIDED)


def image_of(name: str, inputs: Tensor) -> tuple[slice, ...]:
    """Where the image is, said again."""
    everything = slice(None)
    if name in ("svd", "cogvideox-ddim", "consisid"):
        return (everything, everything, slice(inputs.shape[2] // 2, None))
    if name in ("sana-video", "wan22-5b", "hunyuan-replace", "i2vgen-xl"):
        return (everything, everything, slice(0, 1))
    if name in ("hunyuan-concat", "hunyuan15"):  # noise, image, one mask
        half = (inputs.shape[1] - 1) // 2
        return (everything, slice(half, 2 * half))
    if name in ("hunyuan-skyreels", "dynamicrafter"):
        return (everything, slice(inputs.shape[1] // 2, None))
    masks = 1 if name == "pia" else 4
    return (everything, slice(-(inputs.shape[1] - masks) // 2, None))


def low(name: str, inputs: Tensor) -> Tensor:
    changed, where = inputs.clone(), image_of(name, inputs)
    image = changed[where]
    changed[where] = down_up(image.reshape(-1, 1, *image.shape[-2:]), 0.5).reshape(image.shape)
    return changed


def given(name: str, prediction: Tensor) -> Tensor:
    """A guided prediction as the pipeline hands it to its scheduler."""
    if name in ("sana-video", "hunyuan-replace"):
        return prediction[:, :, 1:]
    return prediction.transpose(1, 2).flatten(0, 1) if name == "i2vgen-xl" else prediction


@each
def test_low_pass_is_the_equation(name: str, held: Callable[[str, Any, str], None]) -> None:
    plain = Run(name, ALL[name].build())
    pipe = ALL[name].build()
    ours = Run(name, unleak.apply(pipe, strategies=[unleak.LowPass(0.5, (0.0, 0.0))]))
    with torch.no_grad():
        if name in BATCHED:
            _, conditional = plain.again(0, low(name, plain.input(0))).chunk(2)
            unconditional, _ = plain.again(0, low(name, plain.input(0))).chunk(2)
            full, _ = plain.outputs[0].chunk(2)
        else:
            conditional = plain.again(0, low(name, plain.input(0)))
            full, unconditional = plain.outputs[1], plain.again(1, low(name, plain.input(1)))
    expected = given(name, full + W * (conditional - unconditional))
    torch.testing.assert_close(ours.steps[0], expected, rtol=1e-4, atol=1e-5)
    assert not torch.equal(ours.steps[0], plain.steps[0])
    assert len(ours.calls) == len(plain.calls) + 1  # one evaluation more in the one step that it acts in
    assert torch.equal(Run(name, unleak.remove(pipe)).result, plain.result)
    held(name, pipe, "low-pass")


@each
def test_strategies_that_never_act_change_no_bit(name: str) -> None:
    pipe = ALL[name].build()
    plain = Run(name, pipe).result
    for strategy in (
        unleak.LowPass(0.5, (0.0, 1.0), strength=0.0),
        unleak.ConditionNoise(0.0),
        unleak.GuidanceInterval(high="1.0T"),
    ):
        result = Run(name, unleak.apply(pipe, strategies=[strategy])).result
        assert torch.equal(result, plain), strategy


def _vp(pipe: Any) -> bool:
    return not hasattr(pipe.scheduler, "sigmas")


@each
def test_condition_noise_is_on_the_conditional_image_alone(name: str, held: Callable[[str, Any, str], None]) -> None:
    plain, pipe = Run(name, ALL[name].build()), ALL[name].build()
    ours = Run(name, unleak.apply(pipe, strategies=[unleak.ConditionNoise(0.3, (0.0, 0.0), seed=4)]))
    change = ours.input(0) - plain.input(0)
    where = image_of(name, plain.input(0))
    elsewhere = torch.ones_like(change)
    elsewhere[where] = 0
    assert not (change * elsewhere).any()
    image = change[where]
    if name in BATCHED:
        assert not image[: len(image) // 2].any()
        image = image[len(image) // 2 :]
    else:
        assert torch.equal(ours.input(1), plain.input(1))
    image = image.transpose(1, 2) if name in ("svd", "cogvideox-ddim", "consisid") else image  # b c f h w
    if name in ("svd", "pia", "dynamicrafter"):
        torch.testing.assert_close(image, image[:, :, :1].expand_as(image), rtol=1e-4, atol=1e-5)
    else:
        assert not image[:, :, 1:].any()
    assert image[:, :, 0].std().item() == pytest.approx(0.3, rel=0.5)
    again = Run(name, pipe).result
    assert torch.equal(again, ours.result)
    assert not torch.equal(again, plain.result)
    held(name, unleak.remove(pipe), "condition noise")


@each
def test_guidance_outside_the_interval_is_none(name: str, held: Callable[[str, Any, str], None]) -> None:
    plain, pipe = Run(name, ALL[name].build()), ALL[name].build()
    limit = {"svd": "sigma=100"}.get(name, "500" if _vp(pipe) else "sigma=0.7")
    ours = Run(name, unleak.apply(pipe, strategies=[unleak.GuidanceInterval(high=limit)]))
    conditional = plain.outputs[0].chunk(2)[1] if name in BATCHED else plain.outputs[0]
    assert torch.equal(ours.steps[0], given(name, conditional))
    assert len(ours.steps) == len(plain.steps)
    saved = len(plain.calls) - len(ours.calls)
    assert saved == 0 if name in BATCHED else 0 < saved <= len(plain.steps)
    held(name, unleak.remove(pipe), "guidance interval")


@pytest.mark.parametrize("name", UNGUIDED)
def test_an_empty_guidance_interval_is_the_pipeline_without_guidance(
    name: str, held: Callable[[str, Any, str], None]
) -> None:
    pipe = ALL[name].build()
    torch.manual_seed(1)
    for parameter in getattr(pipe, ALL[name].denoiser).parameters():
        if not parameter.any():  # born as zero, and with it what the prompt does
            torch.nn.init.normal_(parameter, std=0.1)
    between = {"VP": ("960", "950"), "VE": ("sigma=0.0022", "sigma=0.0021"), "RF": ("sigma=0.0012", "sigma=0.0011")}
    interval = unleak.GuidanceInterval(*between[process_of(pipe.scheduler).kind])  # no step begins there
    guided = GUIDING.get(name, {})
    plain = same_seed(name, pipe, **guided)
    ours = same_seed(name, unleak.apply(pipe, strategies=[interval]), **guided)
    alone = same_seed(name, unleak.remove(pipe), **guided | UNGUIDED[name])
    for a, b in zip(ours, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert not all(torch.equal(a, b) for a, b in zip(plain, alone, strict=True))
    held(name, pipe, "guidance interval")


def test_strategies_go_with_a_start_and_with_each_other() -> None:
    pipe = ALL["wan21"].build()
    alone = Run("wan21", unleak.apply(pipe, start="sigma=0.9", init="unit"), num_inference_steps=9)
    strategies = [unleak.LowPass(), unleak.ConditionNoise(0.1), unleak.GuidanceInterval(high="sigma=0.8")]
    unleak.apply(pipe, start="sigma=0.9", init="unit", strategies=strategies)
    together = Run("wan21", pipe, num_inference_steps=9)
    assert together.calls[0][2]["timestep"].item() == alone.calls[0][2]["timestep"].item() == 900
    assert not torch.equal(together.result, alone.result)
    assert "LowPass(factor=None" in str(unleak.summary(pipe))


def test_a_call_that_fails_leaves_no_strategy_behind() -> None:
    pipe = ALL["wan21"].build()
    unleak.apply(pipe, strategies=[unleak.LowPass()])

    def fail(*args: Any) -> None:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        ALL["wan21"].call(pipe, callback_on_step_end=fail)
    assert "forward" not in vars(pipe.transformer)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("ltx", lambda: unleak.LowPass(0.5, (0.0, 0.1)), "LowPass cannot be attached to LTXImageToVideoPipeline"),
        ("kandinsky5", lambda: unleak.ConditionNoise(0.1), "cannot be attached to Kandinsky5I2VPipeline"),
        ("skyreels-v2-forcing", lambda: unleak.GuidanceInterval(high="0.9T"), "GuidanceInterval cannot be attached"),
        ("svd", unleak.LowPass, "no published values for StableVideoDiffusionPipeline"),
        ("wan21", lambda: unleak.GuidanceInterval(high="0.2T", low="0.3T"), "low 0.3T is not below high 0.2T"),
        ("wan21", unleak.GuidanceInterval, "needs a limit"),
        ("wan21", lambda: unleak.LowPass(1.5, (0.0, 0.1)), "needs a factor in"),
        ("wan21", lambda: unleak.LowPass(filter="median"), "choose down_up or gaussian"),
        ("wan21", lambda: unleak.LowPass(filter="gaussian"), "needs sigma > 0"),
        ("wan21", lambda: unleak.LowPass(0.5, (0.4, 0.1)), "is not .first, last. share"),
        ("wan21", lambda: unleak.LowPass(0.5, (0.0, 0.1), strength=2), "outside 0"),
        ("wan21", lambda: unleak.ConditionNoise(-1.0), "beta >= 0"),
        ("wan21", lambda: "low-pass", "is no strategy"),
    ],
)  # fmt: skip
def test_what_cannot_be_attached_is_said(name: str, make: Any, message: str) -> None:
    pipe = ALL[name].build()
    with pytest.raises(ValueError, match=message):
        unleak.apply(pipe, strategies=[make()])
    assert not hasattr(type(pipe), "_unleak_plan")


def test_filters_keep_what_is_smooth_and_drop_what_is_not() -> None:
    flat = torch.full((2, 1, 8, 12), 3.0)
    checks = (torch.arange(8)[:, None] + torch.arange(12)).remainder(2).float().expand(1, 1, 8, 12) - 0.5
    for blur in (lambda x: down_up(x, 0.25), lambda x: gaussian(x, 2.0)):
        torch.testing.assert_close(blur(flat), flat)
        assert blur(checks)[..., 2:-2, 2:-2].abs().max() < 0.05
    impulse = torch.zeros(1, 1, 25, 25)
    impulse[..., 12, 12] = 1
    spread = gaussian(impulse, 2.0)
    variance = (spread.sum((0, 1, 2)) * (torch.arange(25) - 12.0).square()).sum()
    assert variance.item() == pytest.approx(4.0, rel=0.05)  # cut off at 3 sigma


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "low_pass",
    [unleak.LowPass(0.4, (0.0, 0.2)), unleak.LowPass(interval=(0.0, 0.2), filter="gaussian", sigma=1.5)],
)
def test_half_precision_is_filtered_in_float32(low_pass, dtype):
    image = torch.randn(1, 2, 4, 12, 20, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.equal(low_pass.filtered(image), low_pass.filtered(image.float()).to(dtype))


@pytest.mark.parametrize("name", ["ltx-condition", "ltx2-condition"])
def test_condition_noise_by_strength_is_the_callers_own_argument(
    name: str, held: Callable[[str, Any, str], None]
) -> None:
    pipe = ALL[name].build()
    plain = same_seed(name, pipe)
    ours = same_seed(name, unleak.apply(pipe, strategies=[unleak.ConditionNoise(0.25)]))
    by_hand = same_seed(name, unleak.remove(pipe), **weaker(name, 0.8))  # 1 / (1 + 0.25)
    assert all(torch.equal(a, b) for a, b in zip(ours, by_hand, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))
    nothing = same_seed(name, unleak.apply(pipe, strategies=[unleak.ConditionNoise(0.0)]))
    assert all(torch.equal(a, b) for a, b in zip(nothing, plain, strict=True))
    with pytest.raises(ValueError, match="gives a strength of its own"):
        same_seed(name, unleak.apply(pipe, strategies=[unleak.ConditionNoise(0.1)]), **weaker(name, 0.8))
    with pytest.raises(ValueError, match=r"acts in every step of .*: leave the interval away"):
        unleak.apply(pipe, strategies=[unleak.ConditionNoise(0.1, 0.5)])
    held(name, unleak.remove(pipe), "condition noise")


def test_condition_noise_by_scale_adds_to_the_callers_own() -> None:
    """The call is the one that a person would make by hand."""
    name, scale = "ltx-condition", "image_cond_noise_scale"
    pipe = ALL[name].build()
    plain, by_hand = same_seed(name, pipe), same_seed(name, pipe, **{scale: 0.4})
    ours = same_seed(name, unleak.apply(pipe, strategies=[unleak.ConditionNoise(0.25, argument=scale)]))  # 0.15 + 0.25
    assert all(torch.equal(a, b) for a, b in zip(ours, by_hand, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))
    with pytest.raises(ValueError, match="acts on photos with strength 1 only"):
        same_seed(name, pipe, **weaker(name, 0.8))
    nothing = same_seed(name, unleak.apply(pipe, strategies=[unleak.ConditionNoise(0.0, argument=scale)]))
    assert all(torch.equal(a, b) for a, b in zip(nothing, plain, strict=True))
    assert parse_fix(f"condition-noise=0.25:1:{scale}") == unleak.ConditionNoise(0.25, argument=scale)
    for other in ("ltx2-condition", "wan21"):
        with pytest.raises(ValueError, match="has no image_cond_noise_scale by which ConditionNoise could add noise"):
            unleak.apply(ALL[other].build(), strategies=[unleak.ConditionNoise(0.25, argument=scale)])


def weaker(name: str, strength: float) -> dict[str, Any]:
    if name == "ltx-condition":
        return {"strength": strength}
    from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition

    from tests.tiny.model import photo

    return {"conditions": [LTX2VideoCondition(frames=photo(64, 32), index=0, strength=strength, crf=0)]}


HOSTILE = [float("nan"), float("inf"), -1, True, "1", None, [], {}, b"1", 1j, object(), float, 10**400]
HOSTILE += [torch.tensor(0.9), torch.ones(3), np.array([1, 2])]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: str(value)[:12])
@pytest.mark.parametrize(
    "build",
    [
        lambda value: unleak.Compress(value),
        lambda value: unleak.ConditionNoise(value),
        lambda value: unleak.ConditionNoise(1.0, interval=value),
        lambda value: unleak.ConditionNoise(1.0, interval=(0.0, value)),
        lambda value: unleak.ExpertGuidance(high=value),
        lambda value: unleak.LowPass([] if value is None else value),
        lambda value: unleak.LowPass(filter="gaussian", sigma=value),
        lambda value: unleak.LowPass(strength=value),
        lambda value: unleak.MotionAmplitude(value),
        lambda value: unleak.ReferenceBias(value),
        lambda value: unleak.ReferenceBias(until=value),
        lambda value: unleak.TimeNoise(value),
        lambda value: unleak.TimeNoise(a=value),
        lambda value: unleak.TimeNoise(spread=value),
    ],
    ids=range(14),
)
def test_a_number_that_is_none_is_refused_in_a_sentence(build, value):
    with pytest.raises(ValueError, match=r" needs | interval | strength "):
        build(value)


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), 0.5])
def test_numpys_numbers_are_numbers(value):
    assert unleak.MotionAmplitude(value).amount == unleak.ReferenceBias(until=value).until == 0.5


@pytest.mark.parametrize("value", [True, None, [], {}, b"0.9T", 1j, object(), torch.tensor(940), np.array([1, 2])])
def test_a_start_that_is_neither_text_nor_number_is_refused(value):
    with pytest.raises(ValueError, match="a start is a text or a number, not "):
        unleak.Start.parse(value)
    with pytest.raises(ValueError, match="a start cannot be "):
        unleak.Start("sigma", value)
