import copy
import inspect
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SCMScheduler, StableVideoDiffusionPipeline
from einops import rearrange
from PIL import Image
from torch import Tensor

import unleak
from tests.attach.watch import all_tiny
from unleak.attach import session
from unleak.attach.latent_space import latent_space
from unleak.attach.plan import UnleakNote, UnleakWarning
from unleak.attach.seams import SEAMS
from unleak.core.initial import AnalyticInit, InitialNoise, Standard, Unit
from unleak.core.moments import LatentMoments, MomentsMeta
from unleak.core.process import Level
from unleak.core.start import Start

FRAMES, STEPS, LATENTS = 3, 4, (1, 3, 4, 4, 6)
KARRAS = (0.2 * 0.002 ** (1 / 7) + 0.8 * 700 ** (1 / 7)) ** 7  # 0.8T


def image() -> Image.Image:
    pixels = torch.randint(0, 255, (32, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    return Image.fromarray(pixels.numpy())


def call(pipe: Any, **changes: Any) -> Tensor:
    settings = {"height": 32, "width": 48, "num_frames": FRAMES, "num_inference_steps": STEPS, "output_type": "latent"}
    generator = torch.Generator().manual_seed(0)
    return pipe(image(), **(settings | {"generator": generator} | changes)).frames


class Seen:
    """What the denoiser is given: timesteps, and the latents before its input scaling."""

    def __init__(self, pipe: Any, **changes: Any) -> None:
        self.timesteps: list[float] = []
        self.initial: Tensor | None = None
        scale = type(pipe.scheduler).scale_model_input

        def spy(module: Any, args: Any, kwargs: Any) -> None:
            sample, timestep = args
            self.timesteps.append(float(timestep))
            if self.initial is None:
                sigma = torch.tensor(4 * float(timestep)).exp()
                self.initial = sample[-1:, :, :4] * (sigma**2 + 1).sqrt()

        handle = pipe.unet.register_forward_pre_hook(spy, with_kwargs=True)
        try:
            self.result = call(pipe, **changes)
        finally:
            handle.remove()
        assert type(pipe.scheduler).scale_model_input is scale


def moments_for(pipe: Any, shape: tuple[int, ...] = (4, FRAMES, 4, 6), **meta: Any) -> LatentMoments:
    mean = torch.randn(shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return LatentMoments(7, mean, mean.square() + 0.5, MomentsMeta(model="tiny", vae=latent_space(pipe.vae), **meta))


def plain_noise(pipe: Any) -> Tensor:
    return Seen(pipe).initial / (700.0**2 + 1) ** 0.5


@pytest.fixture
def pipe(tiny_svd: StableVideoDiffusionPipeline) -> StableVideoDiffusionPipeline:
    return tiny_svd


# Identity


@pytest.mark.parametrize("mode", ["rescale", "truncate"])
@pytest.mark.parametrize("start", [None, "1.0T", "sigma=700"])
def test_full_start_with_standard_init_is_the_plain_pipeline_bit_for_bit(pipe, start, mode) -> None:
    plain = call(pipe)
    assert torch.equal(call(unleak.apply(pipe, start=start, mode=mode)), plain)


def test_frames_too_are_the_same_bits(pipe) -> None:
    plain = call(pipe, output_type="pt")
    assert torch.equal(call(unleak.apply(pipe, start="1.0T"), output_type="pt"), plain)
    assert not torch.equal(call(unleak.apply(pipe, start="sigma=100"), output_type="pt"), plain)


@pytest.mark.parametrize("mode", ["rescale", "truncate"])
def test_removal_leaves_no_trace(pipe, mode) -> None:
    plain, scheduler = call(pipe), pipe.scheduler
    before, config, state = dict(vars(pipe)), dict(pipe.config), copy.deepcopy(vars(scheduler))
    unleak.apply(pipe, start="sigma=40", init=AnalyticInit(moments_for(pipe)), mode=mode)
    changed = call(pipe)
    assert unleak.remove(pipe) is pipe
    assert type(pipe) is StableVideoDiffusionPipeline
    assert vars(pipe).keys() == before.keys()
    assert pipe.scheduler is scheduler
    assert dict(pipe.config) == config
    assert vars(scheduler).keys() == state.keys()
    for name, value in state.items():
        same = (
            torch.equal(value, vars(scheduler)[name]) if isinstance(value, Tensor) else value == vars(scheduler)[name]
        )
        assert same, name
    assert torch.equal(call(pipe), plain)
    assert not torch.equal(changed, plain)


def test_a_call_that_fails_leaves_no_trace_either(pipe) -> None:
    plain, scheduler, before = call(pipe), pipe.scheduler, vars(pipe).keys()
    unleak.apply(pipe, start="sigma=40", init="unit")

    def fail(*args: Any) -> None:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        call(pipe, callback_on_step_end=fail)
    assert pipe.scheduler is scheduler
    assert vars(pipe).keys() == before
    assert torch.equal(call(unleak.remove(pipe)), plain)


def test_nothing_to_remove(pipe) -> None:
    assert unleak.remove(unleak.remove(pipe)) is pipe


# The level asked for is the level given


@pytest.mark.parametrize("mode", ["rescale", "truncate"])
@pytest.mark.parametrize(
    ("start", "sigma"), [("sigma=100", 100.0), ("logsnr=-7", 33.115452), ("0.8T", KARRAS), ("timestep=1", 54.59815)]
)
def test_the_denoiser_is_given_the_level(pipe, start, sigma, mode) -> None:
    seen = Seen(unleak.apply(pipe, start=start, mode=mode))
    assert seen.timesteps[0] == pytest.approx(0.25 * torch.tensor(sigma).log().item(), rel=1e-6)
    assert seen.timesteps == sorted(seen.timesteps, reverse=True)
    told = unleak.summary(pipe, num_inference_steps=STEPS)
    assert told.level["sigma"] == pytest.approx(sigma, rel=1e-6)
    assert seen.timesteps == pytest.approx((0.25 * torch.tensor(told.after[:-1]).log()).tolist(), rel=1e-6)
    assert len(seen.timesteps) == (STEPS if mode == "rescale" else 1 + sum(0 < s < sigma for s in told.before))


@pytest.mark.parametrize("mode", ["rescale", "truncate"])
@pytest.mark.parametrize(
    ("init", "variance"),
    [
        ("standard", 100.0**2 + 1),
        (Standard(), 100.0**2 + 1),
        (Standard(50.0), 50.0**2),
        ("unit", 100.0**2 + 1),
        (Unit(), 100.0**2 + 1),
    ],
)
def test_initial_latents_without_moments(pipe, init, variance, mode) -> None:
    eps = plain_noise(pipe)
    seen = Seen(unleak.apply(pipe, start="sigma=100", init=init, mode=mode))
    torch.testing.assert_close(seen.initial, variance**0.5 * eps, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize(("start", "sigma"), [(None, 700.0), ("sigma=100", 100.0), ("sigma=2", 2.0)])
@pytest.mark.parametrize("shape", [(4, FRAMES, 4, 6), (4, 16, 5, 8)], ids=["same size", "resampled"])
def test_initial_latents_are_mean_plus_std_times_the_same_eps(pipe, start, sigma, shape, reference) -> None:
    eps, moments = plain_noise(pipe), moments_for(pipe, shape)
    seen = Seen(unleak.apply(pipe, start=start, init=AnalyticInit(moments, reference=reference)))
    mean = rearrange(moments.resample(FRAMES, 4, 6).mean, "c f h w -> 1 f c h w").float()
    std = (sigma**2 + reference + moments.isotropic_variance) ** 0.5
    torch.testing.assert_close(seen.initial, mean + std * eps, rtol=1e-5, atol=1e-5 * sigma)
    assert (seen.initial - std * eps).std() > 0.5  # the mean can be seen


def test_the_guards_above_can_fail(pipe, monkeypatch) -> None:
    # With the noise hook put out of order the initial latents are no longer the ones asked for ...
    monkeypatch.setattr(session, "_sample", lambda init, eps, level, lead: eps)
    eps, moments = plain_noise(pipe), moments_for(pipe)
    seen = Seen(unleak.apply(pipe, start="sigma=2", init=AnalyticInit(moments)))
    mean = rearrange(moments.mean, "c f h w -> 1 f c h w").float()
    with pytest.raises(AssertionError):
        torch.testing.assert_close(
            seen.initial, mean + (4 + moments.isotropic_variance) ** 0.5 * eps, rtol=1e-5, atol=1e-4
        )
    # ... and without the schedule the denoiser gets another level.
    monkeypatch.setattr(session, "started", lambda scheduler, level, mode, limits: copy.deepcopy(scheduler))
    assert Seen(unleak.apply(pipe, start="sigma=100")).timesteps[0] == pytest.approx(0.25 * torch.tensor(700.0).log())


def test_image_noise_keeps_its_draw(pipe) -> None:
    # The pipeline noises its condition before it draws the latents, from the same generator.
    def condition(pipe: Any) -> Tensor:
        seen = []
        handle = pipe.unet.register_forward_pre_hook(lambda module, args: seen.append(args[0][-1, :, 4:]))
        call(pipe, noise_aug_strength=0.5)
        handle.remove()
        return seen[0]

    plain = condition(pipe)
    assert torch.equal(condition(unleak.apply(pipe, start="sigma=2", init=AnalyticInit(moments_for(pipe)))), plain)


def test_batch_and_generators_per_sample(pipe) -> None:
    unleak.apply(pipe, start="sigma=40", init=AnalyticInit(moments_for(pipe)))
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    both = Seen(pipe, generator=generators, num_videos_per_prompt=2)
    assert both.result.shape == (2, *LATENTS[1:])
    assert both.initial.shape == LATENTS  # the last of the batch
    assert not torch.equal(both.result[0], both.result[1])


# What the caller brings


def test_the_progress_bar_ends_full(pipe, capfd) -> None:
    pipe.set_progress_bar_config(disable=False)
    call(unleak.apply(pipe, start="sigma=2", mode="truncate"))
    assert "100%" in capfd.readouterr().err
    pipe.set_progress_bar_config(disable=True)


def test_latents_of_the_caller_are_left_alone_and_an_init_in_vain_is_said(pipe) -> None:
    latents = torch.randn(LATENTS, generator=torch.Generator().manual_seed(3))
    unleak.apply(pipe, start="sigma=2", init=AnalyticInit(moments_for(pipe)))
    with pytest.warns(UnleakWarning, match=r"init AnalyticInit\(tiny.*\) is ignored: this call brings its own latents"):
        seen = Seen(pipe, latents=latents)
    torch.testing.assert_close(seen.initial, latents * 5**0.5)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "init", UnleakWarning)  # nothing is ignored where no init was asked for
        call(unleak.apply(pipe, start="sigma=2"), latents=latents)


def test_sigmas_of_the_caller_win_and_say_so(pipe) -> None:
    sigmas = [30.0, 5.0, 1.0, 0.0]
    plain = call(pipe, num_inference_steps=None, sigmas=sigmas)
    unleak.apply(pipe, start="sigma=100")
    with pytest.warns(
        UnleakWarning,
        match="3 of 3 steps are run. The start was asked for at sigma 100 and moves to 30.*its own schedule",
    ):
        assert torch.equal(call(pipe, num_inference_steps=None, sigmas=sigmas), plain)
    unleak.apply(pipe, start="sigma=100", mode="rescale")
    with pytest.warns(UnleakWarning, match="start sigma=100 is ignored: this call brings its own sigmas"):
        assert torch.equal(call(pipe, num_inference_steps=None, sigmas=sigmas), plain)
    eps = plain_noise(unleak.remove(pipe))
    moments = moments_for(pipe)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnleakWarning)  # nothing is ignored where no start was asked for
        seen = Seen(unleak.apply(pipe, init=AnalyticInit(moments)), num_inference_steps=None, sigmas=sigmas)
    mean = rearrange(moments.mean, "c f h w -> 1 f c h w").float()
    torch.testing.assert_close(
        seen.initial, mean + (900 + moments.isotropic_variance) ** 0.5 * eps, rtol=1e-5, atol=1e-3
    )


def test_a_user_may_do_the_same_by_hand(pipe) -> None:
    # pipe(sigmas=, latents=) is the same arithmetic, but for the noise: it has to be drawn before the image's.
    moments = moments_for(pipe)
    ours = Seen(unleak.apply(pipe, start="sigma=100", init=AnalyticInit(moments)))
    unleak.remove(pipe)
    sigmas = unleak.summary(unleak.apply(pipe, start="sigma=100"), num_inference_steps=STEPS).after
    theirs = call(
        unleak.remove(pipe), sigmas=list(sigmas), num_inference_steps=None, latents=ours.initial / (100**2 + 1) ** 0.5
    )
    torch.testing.assert_close(ours.result, theirs, rtol=1e-4, atol=1e-5)


# One instance, and only that one


def test_siblings_and_the_class_never_notice(pipe) -> None:
    sibling = StableVideoDiffusionPipeline(**pipe.components)  # the very same scheduler object, too
    plain, methods = call(sibling), dict(vars(StableVideoDiffusionPipeline))
    unleak.apply(pipe, start="sigma=2", init=AnalyticInit(moments_for(pipe)))
    call(pipe)
    assert torch.equal(call(sibling), plain)
    assert dict(vars(StableVideoDiffusionPipeline)) == methods


def test_a_sibling_called_in_the_middle_of_a_call_never_notices(pipe) -> None:
    sibling = StableVideoDiffusionPipeline(**pipe.components)
    sibling.set_progress_bar_config(disable=True)
    plain, middle = call(sibling), []

    def meanwhile(*args: Any) -> dict:
        middle.append(call(sibling))
        return {}

    unleak.apply(pipe, start="sigma=2", init="unit")
    call(pipe, callback_on_step_end=meanwhile)
    assert all(torch.equal(result, plain) for result in middle)
    assert len(middle) == STEPS


def test_a_second_apply_replaces_the_first(pipe) -> None:
    once = call(unleak.apply(pipe, start="sigma=100"))
    unleak.apply(unleak.apply(pipe, start="sigma=2", init="unit", mode="truncate"), start="sigma=100")
    assert torch.equal(call(pipe), once)
    assert type(pipe).__mro__[1] is StableVideoDiffusionPipeline


def test_an_apply_that_fails_leaves_the_first_in_place(pipe) -> None:
    once = call(unleak.apply(pipe, start="sigma=100"))
    with pytest.raises(ValueError, match="outside"):
        unleak.apply(pipe, start="sigma=800")
    assert torch.equal(call(pipe), once)


def test_applied_restores_what_was_there(pipe) -> None:
    plain = call(pipe)
    outer = call(unleak.apply(pipe, start="sigma=100"))
    with unleak.applied(pipe, start="sigma=2") as same:
        assert same is pipe
        assert Seen(pipe).timesteps[0] == pytest.approx(0.25 * torch.tensor(2.0).log())
    assert torch.equal(call(pipe), outer)
    unleak.remove(pipe)
    with pytest.raises(ValueError, match="outside"), unleak.applied(pipe, start="sigma=800"):
        pytest.fail("never reached")
    with pytest.raises(RuntimeError, match="stopped"), unleak.applied(pipe, start="sigma=2"):
        raise RuntimeError("stopped")
    assert type(pipe) is StableVideoDiffusionPipeline
    assert torch.equal(call(pipe), plain)


def test_scheduler_swapped_after_apply(pipe) -> None:
    config = pipe.scheduler.config
    unleak.apply(pipe, start="sigma=100")
    once = call(pipe)
    pipe.scheduler = type(pipe.scheduler).from_config(config)
    assert torch.equal(call(pipe), once)
    pipe.scheduler = type(pipe.scheduler).from_config(config, sigma_max=80.0)
    with pytest.raises(ValueError, match=r"sigma 100 lies outside this VE process.*0.002.*80"):
        call(pipe)
    pipe.scheduler = SCMScheduler()
    with pytest.raises(ValueError, match="unleak does not know SCMScheduler"):
        call(pipe)
    assert isinstance(pipe.scheduler, SCMScheduler)


def test_copies_and_files(pipe, tmp_path: Path) -> None:
    plain = call(pipe)
    once = call(unleak.apply(pipe, start="sigma=100"))
    twin = copy.deepcopy(pipe)
    assert torch.equal(call(twin), once)
    assert torch.equal(call(unleak.remove(twin)), plain)
    assert torch.equal(call(pipe), once)

    related = StableVideoDiffusionPipeline.from_pipe(pipe)
    related.set_progress_bar_config(disable=True)
    assert type(related) is StableVideoDiffusionPipeline
    assert torch.equal(call(related), plain)

    pipe.save_pretrained(tmp_path)
    loaded = StableVideoDiffusionPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded) is StableVideoDiffusionPipeline
    torch.testing.assert_close(call(loaded), plain, rtol=1e-4, atol=1e-5)
    assert loaded.scheduler.config.sigma_max == 700


def test_two_pipelines_in_two_threads(pipe) -> None:
    other = copy.deepcopy(pipe)
    unleak.apply(pipe, start="sigma=100")
    unleak.apply(other, start="sigma=2", init="unit")
    alone = [call(pipe), call(other)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(call, [pipe, other]))
    assert all(map(torch.equal, alone, together))


def test_the_attached_class_looks_like_the_plain_one(pipe) -> None:
    plain = StableVideoDiffusionPipeline
    cls = type(unleak.apply(pipe, start="sigma=100"))
    assert (cls.__name__, cls.__qualname__, cls.__module__, cls.__doc__) == (
        plain.__name__,
        plain.__qualname__,
        plain.__module__,
        plain.__doc__,
    )
    assert inspect.signature(cls.__call__) == inspect.signature(plain.__call__)
    assert isinstance(pipe, plain)


def test_a_later_patch_of_the_class_is_lost_with_a_warning(pipe) -> None:
    cls = type(unleak.apply(pipe, start="sigma=100"))
    ours = cls.__call__
    cls.__call__ = lambda self, *args, **kwargs: ours(self, *args, **kwargs)
    with pytest.warns(UnleakWarning, match="another library patched this pipeline's class"):
        unleak.remove(pipe)
    assert type(pipe) is StableVideoDiffusionPipeline


def test_a_later_wrapper_must_go_first(pipe) -> None:
    cls = type(unleak.apply(pipe, start="sigma=100"))
    pipe.__class__ = type("Wrapper", (cls,), {})
    with pytest.raises(ValueError, match="something else wrapped this Wrapper after unleak"):
        unleak.remove(pipe)


# The public door


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": "0.94"}, r"0.94T or sigma=0.94\?"),
        ({"start": "sigma=701"}, r"sigma 701 lies outside this VE process: it runs from sigma 0.002"),
        ({"start": "940"}, r"timestep 940 lies outside this VE process: it runs from timestep -1.55"),
        ({"mode": "drop"}, "choose auto, rescale, truncate"),
        ({"init": "analytic"}, "needs moments of this model"),
        ({"init": "best"}, "choose standard, unit or analytic"),
        ({"motion": "extreme"}, "choose low, medium, high"),
        ({"motion": "high", "start": "sigma=2"}, "motion or start, not both"),
    ],
)
def test_bad_settings_are_named_and_change_nothing(pipe, settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        unleak.apply(pipe, **settings)
    assert type(pipe) is StableVideoDiffusionPipeline


def test_moments_of_another_model_are_refused(pipe) -> None:
    for moments, message in [
        (moments_for(pipe, (16, 3, 4, 6)), "16 channels and belong to tiny; the latents have 4"),
        (replace(moments_for(pipe), meta=MomentsMeta(model="other", vae="AutoencoderKL/0.13025/0a1b2c3d")),
         r"belong to other \(latents of AutoencoderKL/0.13025/0a1b2c3d\), but this pipeline's latents are of"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            unleak.apply(pipe, init=AnalyticInit(moments))


def test_moments_that_do_not_say_and_half_precision_are_accepted(pipe) -> None:
    name = latent_space(pipe.vae)
    assert latent_space(copy.deepcopy(pipe.vae).half()) == name
    unnamed, offloaded = MomentsMeta(), MomentsMeta(vae=name.rpartition("/")[0])
    for meta in (unnamed, offloaded):
        unleak.apply(pipe, init=AnalyticInit(replace(moments_for(pipe), meta=meta)))
    assert latent_space(copy.deepcopy(pipe.vae).to("meta")) == name.rpartition("/")[0]
    other = copy.deepcopy(pipe.vae)
    next(iter(other.encoder.parameters())).neg_()
    assert latent_space(other) != name


def test_other_pipelines_are_refused_with_a_list() -> None:
    for door in (unleak.apply, unleak.summary):
        with pytest.raises(ValueError, match=r"cannot attach to int; it knows .*StableVideoDiffusionPipeline.*add one"):
            door(3)


def test_a_pipeline_may_carry_its_own_seam(pipe) -> None:
    pipe.unleak_seam = replace(SEAMS["StableVideoDiffusionPipeline"], motion={"high": Start.sigma(3)}, motion_fixes={})
    assert Seen(unleak.apply(pipe, motion="high")).timesteps[0] == pytest.approx(0.25 * torch.tensor(3.0).log())


def test_a_pipeline_that_draws_elsewhere_is_refused(pipe) -> None:
    class Other(StableVideoDiffusionPipeline):
        def prepare_latents(self, *args: Any, **kwargs: Any) -> Any:
            return super().prepare_latents(*args, **kwargs)

    pipe.__class__ = Other
    with pytest.raises(ValueError, match="does not draw its noise itself"):
        call(unleak.apply(pipe, init="unit"))
    assert call(unleak.apply(pipe, start="sigma=2")).isfinite().all()


def test_an_initial_noise_of_ones_own(pipe) -> None:
    class Spread(InitialNoise):
        def mean(self, level: Level) -> float:
            return 1.0

        def variance(self, level: Level) -> Tensor:
            return torch.full((4, FRAMES, 4, 6), 4.0)

    eps = plain_noise(pipe)
    torch.testing.assert_close(Seen(unleak.apply(pipe, init=Spread())).initial, 1 + 2 * eps, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("motion", "sigma"), [("low", 250), ("medium", 100), ("high", 40)])
def test_motion_presets(pipe, motion, sigma) -> None:
    told = unleak.summary(unleak.apply(pipe, motion=motion))
    assert told.level["sigma"] == sigma
    added = unleak.GuidanceInterval(high="sigma=10")
    assert told.strategies == ((repr(added),) if motion == "high" else ())
    own = unleak.GuidanceInterval(high="sigma=3")
    assert unleak.summary(unleak.apply(pipe, motion=motion, strategies=own)).strategies == (repr(own),)


def test_summary(pipe) -> None:
    plain = unleak.summary(pipe)
    assert (plain.applied, plain.start, plain.before, len(plain.before)) == (False, None, plain.after, 26)
    unleak.apply(pipe, start="sigma=100", init=AnalyticInit(moments_for(pipe)), mode="truncate")
    cut = unleak.summary(pipe, num_inference_steps=10)
    assert (cut.applied, cut.start, cut.mode, cut.after[0], cut.after[-1]) == (True, "sigma=100", "truncate", 100, 0)
    assert (len(cut.before), len(cut.after)) == (11, 1 + sum(sigma < 100 for sigma in cut.before))
    for text in (
        "sigma=100",
        "0.7106T",
        "log-SNR -9.21",
        "AnalyticInit(tiny, [4, 3, 4, 6])",
        "8 steps",
        "10 steps, sigma 700",
    ):
        assert text in str(cut)


def test_without_arguments_the_recommended_fix_is_applied_and_said(pipe) -> None:
    with pytest.warns(UnleakNote, match=r"applies motion='medium' to this StableVideoDiffusionPipeline.*sigma=100"):
        unleak.apply(pipe)
    assert unleak.summary(pipe).start == "sigma=100"
    assert unleak.summary(unleak.apply(pipe, start=None)).start is None


def test_a_distilled_model_is_recommended_a_fix_that_leaves_its_schedule_alone() -> None:
    tiny = next(tiny for tiny in all_tiny() if tiny.name == "wan21")
    pipe = tiny.build()
    pipe.transformer.register_to_config(_name_or_path="lightx2v/Wan2.2-Lightning")
    with pytest.warns(UnleakNote, match=r"applies MotionAmplitude\(amount=1.15\).*distilled.*Wan2.2-Lightning"):
        unleak.apply(pipe)
    assert unleak.summary(pipe).strategies == ("MotionAmplitude(amount=1.15)",)


def test_one_strategy_is_taken_as_one(pipe) -> None:
    unleak.apply(pipe, strategies=unleak.ConditionNoise(0.1))
    assert unleak.summary(pipe).strategies == (repr(unleak.ConditionNoise(0.1)),)
    assert unleak.summary(pipe).start is None


@pytest.mark.parametrize(
    ("name", "makes"),
    [
        ("StableDiffusionPipeline", r"images of a text \(text-to-image\)"),
        ("FluxPipeline", r"images of a text \(text-to-image\)"),
        ("StableDiffusionImg2ImgPipeline", "images of an image"),
        ("WanPipeline", r"videos of a text \(text-to-video\)"),
    ],
)
def test_other_kinds_of_pipelines_are_refused_as_what_they_are(name: str, makes: str) -> None:
    import diffusers

    pipe = object.__new__(getattr(diffusers, name))
    with pytest.raises(ValueError, match=makes):
        unleak.apply(pipe, start="0.9T")
