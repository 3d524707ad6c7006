from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import unleak
from tests.attach.watch import all_tiny
from tests.tiny.model import embeds
from tests.tiny.text import T5_DIM
from unleak.attach.schedule import process_of
from unleak.attach.strategies.low_pass import down_up, gaussian

pytestmark = pytest.mark.filterwarnings("ignore::unleak.attach.plan.UnleakWarning")

ALL = {tiny.name: tiny for tiny in all_tiny()}
W = 3.0
GUIDED: dict[str, dict[str, Any]] = {
    "svd": {"min_guidance_scale": W, "max_guidance_scale": W},
    "pia": {"guidance_scale": W},
    "dynamicrafter": {"guidance_scale": W, "guidance_rescale": 0.0},
    "i2vgen-xl": {"guidance_scale": W},
    "cogvideox-ddim": {"guidance_scale": W},
    "consisid": {"guidance_scale": W},
    "sana-video": {"guidance_scale": W},
    "wan21": {"guidance_scale": W},
    "wan22": {"guidance_scale": W, "guidance_scale_2": W},
    "wan22-5b": {"guidance_scale": W},
    "chronoedit": {"guidance_scale": W},
    "skyreels-v2": {"guidance_scale": W},
    "hunyuan-concat": {"true_cfg_scale": W},
    "hunyuan-replace": {"true_cfg_scale": W},
    "hunyuan-skyreels": {"true_cfg_scale": W},
    "hunyuan15": {},
}
UNGUIDED: dict[str, dict[str, Any]] = {
    "ltx": {"negative_prompt_embeds": embeds(1, 4, T5_DIM)},
    "ltx-condition": {"negative_prompt_embeds": embeds(1, 4, T5_DIM)},
    "kandinsky5": {"negative_prompt_embeds_qwen": embeds(1, 4, 16), "negative_prompt_embeds_clip": embeds(1, 8)},
    "cosmos1": {"negative_prompt": "a dog runs"},
    "cosmos2": {"negative_prompt": "a dog runs"},
    "cosmos2.5-predict": {"negative_prompt_embeds": embeds(1, 8, T5_DIM)},
    "cosmos2.5-transfer": {"negative_prompt_embeds": embeds(1, 8, T5_DIM)},
    "framepack": {"negative_prompt_embeds": embeds(1, 4, 16), "negative_pooled_prompt_embeds": embeds(1, 8)},
    "wan-vace": {"negative_prompt_embeds": embeds(1, 4, 32)},
    "wan-animate": {"guidance_scale": 1.0},  # its unconditional branch has another face too
    "lucy-edit": {"negative_prompt_embeds": embeds(1, 4, 32)},
    "cogvideox-control": {"negative_prompt": "a dog runs"},
    "sparsectrl": {"negative_prompt": "a dog runs"},
    "animatediff-control": {"negative_prompt": "a dog runs"},
}
"""How others are called so that the guided prediction is the conditional one: mostly, told the same twice."""
GUIDING: dict[str, dict[str, Any]] = {
    "wan-animate": {"guidance_scale": W, "negative_prompt_embeds": embeds(1, 4, 32, seed=2)},
    "cosmos1": {"augment_sigma": 0.0},  # else each branch noises the image anew
}
BATCHED = {"svd", "pia", "dynamicrafter", "i2vgen-xl", "cogvideox-ddim", "consisid", "sana-video"}
each = pytest.mark.parametrize("name", GUIDED)


class Run:
    """Every evaluation of the network itself, below whatever is attached, and what the scheduler is given."""

    def __init__(self, name: str, pipe: Any, **changes: Any) -> None:
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
        self.outputs: list[Tensor] = []
        self.steps: list[Tensor] = []
        networks = [getattr(pipe, part, None) for part in ("unet", "transformer", "transformer_2")]
        networks = [network for network in networks if network is not None]
        for network in networks:
            self._record(network)
        cls = type(pipe.scheduler)
        step = cls.step
        cls.step = lambda scheduler, output, *args, **kwargs: (
            self.steps.append(output.clone()) or step(scheduler, output, *args, **kwargs)
        )
        if name == "hunyuan15":
            pipe.guider.guidance_scale = W
        try:
            torch.manual_seed(0)
            self.result = ALL[name].call(pipe, **GUIDED[name] | changes)
        finally:
            cls.step = step
            for network in networks:
                assert network.forward.__name__ == "recorded"  # an attachment inside has been taken off again
                del network.forward

    def _record(self, network: Any) -> None:
        plain = network.forward

        def recorded(*args: Any, **kwargs: Any) -> Any:
            kept = {key: value.clone() if isinstance(value, Tensor) else value for key, value in kwargs.items()}
            self.calls.append((plain, tuple(a.clone() if isinstance(a, Tensor) else a for a in args), kept))
            output = plain(*args, **kwargs)
            self.outputs.append((output[0] if isinstance(output, tuple) else output.sample).clone())
            return output

        network.forward = recorded

    def input(self, call: int) -> Tensor:
        _, args, kwargs = self.calls[call]
        names = ("image_latents", "hidden_states", "sample")
        return next((kwargs[name] for name in names if name in kwargs), args[0] if args else None)

    def again(self, call: int, latents: Tensor) -> Tensor:
        forward, args, kwargs = self.calls[call]
        name = next((name for name in ("image_latents", "hidden_states", "sample") if name in kwargs), None)
        output = forward(*args, **kwargs | {name: latents}) if name else forward(latents, *args[1:], **kwargs)
        return output[0] if isinstance(output, tuple) else output.sample


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


def same_seed(name: str, pipe: Any, **changes: Any) -> list[Tensor]:
    torch.manual_seed(0)
    result = ALL[name].call(pipe, **changes)
    return result if isinstance(result, list) else [result]


def test_strategies_go_with_a_start_and_with_each_other() -> None:
    pipe = ALL["wan21"].build()
    alone = Run("wan21", unleak.apply(pipe, start="sigma=0.9", init="unit"))
    strategies = [unleak.LowPass(), unleak.ConditionNoise(0.1), unleak.GuidanceInterval(high="sigma=0.8")]
    unleak.apply(pipe, start="sigma=0.9", init="unit", strategies=strategies)
    together = Run("wan21", pipe)
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
