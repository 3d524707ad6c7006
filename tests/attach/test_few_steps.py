"""Few-step schedules of distilled models: a start keeps to the levels that they have."""

import warnings
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch

import unleak
from tests.attach.guided import ALL, GUIDED
from unleak.attach.distilled import GRIDS, LTX2, distilled, grid_named
from unleak.attach.plan import UnleakWarning
from unleak.attach.schedule import few_steps, level_of_step, process_of, started
from unleak.attach.schedulers.adapter import Limits
from unleak.core.process import VP, Level
from unleak.core.start import Start

STEPS = 4


def lightning() -> Any:
    pipe = ALL["wan21"].build()
    pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0)
    return pipe


def timesteps(name: str, pipe: Any, **changes: Any) -> list[float]:
    """The levels that the denoiser is given."""
    seen: list[float] = []

    def note(module: Any, args: Any, kwargs: Any) -> None:
        t = float(torch.as_tensor(kwargs.get("timestep", args[1] if len(args) > 1 else None)).max())
        if not seen or seen[-1] != t:
            seen.append(t)

    handle = getattr(pipe, ALL[name].denoiser).register_forward_pre_hook(note, with_kwargs=True)
    torch.manual_seed(0)
    try:
        ALL[name].call(pipe, **GUIDED.get(name, {}) | changes)
    finally:
        handle.remove()
    return seen


@pytest.mark.parametrize(
    ("start", "dropped"),
    [("sigma=0.981", 1), ("sigma=0.91", 1), ("sigma=0.8", 2), ("sigma=0.64", 3), ("sigma=0.01", 3), ("1.0T", 0)],
)
def test_truncating_a_distilled_schedule_gives_no_level_that_it_lacks(start: str, dropped: int) -> None:
    plain = timesteps("wan21", lightning(), num_inference_steps=STEPS)
    assert plain == pytest.approx([1000, 909.7, 717.3, 24.4], abs=0.1)
    pipe = unleak.apply(lightning(), start=start, mode="truncate")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert timesteps("wan21", pipe, num_inference_steps=STEPS) == plain[dropped:]
    text = " ".join(str(one.message) for one in told if issubclass(one.category, UnleakWarning))
    assert (f"{STEPS - dropped} of {STEPS} steps are run (start='step:{dropped}')" in text) == bool(dropped)


def test_without_a_mode_few_steps_are_truncated_and_it_is_said() -> None:
    plain = timesteps("wan21", lightning(), num_inference_steps=STEPS)
    with pytest.warns(UnleakWarning, match=r"3 of 4 steps are run \(start='step:1'\)"):
        seen = timesteps("wan21", unleak.apply(lightning(), start="sigma=0.96"), num_inference_steps=STEPS)
    assert seen == plain[1:]
    told = unleak.summary(unleak.apply(lightning(), start="sigma=0.96"), num_inference_steps=STEPS)
    assert told.level["timestep"] == pytest.approx(plain[1], rel=1e-5)
    assert len(told.after) == STEPS


@pytest.mark.parametrize(
    ("name", "given", "applied", "left_out"),
    [
        ("wan21", {}, r"MotionAmplitude\(amount=1.15\)", 0),
        ("wan21", {"motion": "low"}, r"Compress\(crf=33\)", 0),
        ("wan21", {"motion": "medium"}, r"MotionAmplitude\(amount=1.15\)", 0),
        ("wan21", {"motion": "high"}, r"MotionAmplitude\(amount=1.15\) and start step:1", 1),
        ("wan22", {"motion": "high"}, r"ExpertGuidance\(high=3.5, low=1.0\) and MotionAmplitude", 0),
        ("wan22-5b", {"motion": "medium"}, r"ReferenceBias\(gamma=0.6, until=0.2\)", 0),
        ("sana-video", {}, r"Compress\(crf=33\)", 0),
    ],
)
@pytest.mark.filterwarnings("ignore::unleak.attach.plan.UnleakNote")
def test_motion_in_few_steps_is_another_fix_that_fits(
    name: str, given: dict[str, Any], applied: str, left_out: int
) -> None:
    pipe = ALL[name].build()
    own = {"guidance_scale": 5.0, "guidance_scale_2": None} if name == "wan22" else {}  # the pipeline's defaults
    plain = timesteps(name, pipe, num_inference_steps=STEPS, **own)
    unleak.apply(pipe, **given)
    with pytest.warns(UnleakWarning, match=f"in place of a start at logsnr=.* unleak applies {applied}"):
        assert timesteps(name, pipe, num_inference_steps=STEPS, **own) == plain[left_out:]
    told = unleak.summary(pipe, num_inference_steps=STEPS)
    assert len(told.after) == STEPS + 1 - left_out
    assert told.strategies
    assert unleak.summary(pipe, num_inference_steps=20).strategies == ()


def test_the_high_noise_expert_is_guided_without_its_lora() -> None:
    from peft import LoraConfig

    pipe = ALL["wan22"].build()
    for part in (pipe.transformer, pipe.transformer_2):
        part.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False), adapter_name="lightning")
    off: dict[str, list[bool]] = {"transformer": [], "transformer_2": []}
    handles = [
        getattr(pipe, name).register_forward_pre_hook(
            lambda network, args, seen=seen: seen.append(
                all(one.disable_adapters for one in network.modules() if hasattr(one, "lora_A"))
            )
        )
        for name, seen in off.items()
    ]
    unleak.apply(pipe, start=None, strategies=unleak.ExpertGuidance(3.0, 1.5))
    made = ALL["wan22"].call(pipe)
    assert set(off["transformer"]) == {True}
    assert set(off["transformer_2"]) == {False}
    layers = [one for one in pipe.transformer.modules() if hasattr(one, "lora_A")]
    assert layers
    assert not any(one.disable_adapters for one in layers)
    for handle in handles:
        handle.remove()
    unleak.remove(pipe)
    pipe.transformer.disable_adapters()
    assert ALL["wan22"].call(pipe, guidance_scale=3.0, guidance_scale_2=1.5).equal(made)
    unleak.apply(pipe, start=None, strategies=unleak.ExpertGuidance())
    with pytest.raises(ValueError, match=r"this call gives guidance_scale=2, and ExpertGuidance sets it to 3\.5"):
        ALL["wan22"].call(pipe, guidance_scale=2.0)
    with pytest.raises(ValueError, match="it has one expert, not two"):
        unleak.apply(ALL["wan21"].build(), strategies=unleak.ExpertGuidance())
    with pytest.raises(ValueError, match="needs two experts"):
        unleak.apply(ALL["ltx"].build(), strategies=unleak.ExpertGuidance())


def test_few_steps_of_a_distilled_svd_are_truncated() -> None:
    scheduler = diffusers.EulerDiscreteScheduler(use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0)
    known = started(scheduler, Level(1.0, 100.0), "auto", Limits(distilled="its weights are named svd-lcm"))
    known.set_timesteps(4)
    scheduler.set_timesteps(4)
    assert known.sigmas.tolist() == scheduler.sigmas.tolist()[1:]


@pytest.mark.parametrize("k", [0, 1, 3])
@pytest.mark.parametrize("name", ["wan21", "svd", "pia", "ltx", "hunyuan-concat", "cogvideox-dpm"])
@pytest.mark.filterwarnings("ignore::unleak.attach.plan.UnleakWarning")
def test_a_start_may_be_a_step_of_any_schedule(name: str, k: int) -> None:
    pipe = ALL[name].build()
    plain = timesteps(name, pipe, num_inference_steps=5)
    scheduler = pipe.scheduler
    before = dict(scheduler.config)
    ours = timesteps(name, unleak.apply(pipe, start=f"step:{k}"), num_inference_steps=5)
    assert ours == plain[k:]
    assert dict(scheduler.config) == before
    assert unleak.summary(pipe).start == f"step:{k}"


@pytest.mark.filterwarnings("ignore::unleak.attach.plan.UnleakWarning")
def test_noise_of_a_step_is_of_its_level() -> None:
    pipe = lightning()
    begins: list[torch.Tensor] = []
    for plan in (
        {"start": None},
        {"start": "step:2", "init": "unit"},
        {"start": "sigma=0.8", "init": "unit", "mode": "truncate"},
    ):
        seen: list[torch.Tensor] = []
        handle = pipe.transformer.register_forward_pre_hook(
            lambda module, args, kwargs, seen=seen: seen.append(kwargs["hidden_states"][:, :16].clone()),
            with_kwargs=True,
        )
        ALL["wan21"].call(unleak.apply(pipe, **plan), num_inference_steps=STEPS)
        handle.remove()
        begins.append(seen[0])
    plain, step, snapped = begins
    sigma = 0.7173174
    torch.testing.assert_close(step, plain * (sigma**2 + (1 - sigma) ** 2) ** 0.5, rtol=1e-4, atol=1e-5)
    assert torch.equal(step, snapped)


def test_more_steps_than_there_are_cannot_be_left_out() -> None:
    pipe = unleak.apply(lightning(), start="step:4")
    with pytest.raises(ValueError, match="leaves out 4 steps, and the schedule has 4: leave out at most 3"):
        ALL["wan21"].call(pipe, num_inference_steps=4)


def test_rescaling_a_distilled_schedule_is_refused_with_what_works() -> None:
    pipe = unleak.apply(lightning(), start="sigma=0.981", mode="rescale")
    message = r"levels that the schedule \(1, 0.9097, 0.7173, 0.02441\) lacks.*step:1"
    with pytest.raises(ValueError, match=message) as error:
        ALL["wan21"].call(pipe, num_inference_steps=STEPS)
    assert "MotionAmplitude" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_callers_own_sigmas_are_kept_to() -> None:
    pipe = ALL["ltx2"].build()
    pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    sigmas = list(GRIDS[LTX2])
    with pytest.warns(UnleakWarning, match="A start fits LTX-2 distilled badly.*: use Compress or ReferenceBias there"):
        seen = timesteps("ltx2", unleak.apply(pipe, start="sigma=0.96", mode="truncate"), sigmas=sigmas)
    assert seen == pytest.approx([1000 * sigma for sigma in sigmas[5:]], rel=1e-5)
    assert timesteps("ltx2", unleak.apply(pipe, start="step:2"), sigmas=sigmas) == pytest.approx(
        [1000 * sigma for sigma in sigmas[2:]], rel=1e-5
    )
    with pytest.warns(UnleakWarning, match=r"start sigma=0.9 is ignored: this call brings its own sigmas"):
        assert len(timesteps("ltx2", unleak.apply(pipe, start="sigma=0.9", mode="rescale"), sigmas=sigmas)) == 8
    with pytest.warns(UnleakWarning, match="2 of 8 steps are run"):
        assert len(timesteps("ltx2", unleak.apply(pipe, start="sigma=0.9"), sigmas=sigmas)) == 2
    with pytest.raises(ValueError, match="draws its noise before it knows the level"):
        timesteps("ltx2", unleak.apply(pipe, start="step:2", init="unit"), sigmas=sigmas)


def test_ordinary_schedules_are_left_to_the_start() -> None:
    scheduler = started(diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0), Level(0.1, 0.9), "truncate")
    scheduler.set_timesteps(9)
    assert scheduler.sigmas[0].item() == pytest.approx(0.9)
    assert few_steps(scheduler, "truncate") is None
    scheduler = diffusers.EulerDiscreteScheduler(use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0)
    ours = started(scheduler, Level(1.0, 100.0), "rescale")
    ours.set_timesteps(4)  # a preview of an undistilled model: the start is carried out, and the steps are said
    assert ours.sigmas[0] == 100
    assert "all 4 steps are run, at new noise levels" in few_steps(ours, "rescale")
    known = started(scheduler, Level(1.0, 100.0), "truncate", Limits(distilled="its weights are named svd-lcm"))
    known.set_timesteps(12)
    scheduler.set_timesteps(12)
    assert set(known.sigmas.tolist()) <= set(scheduler.sigmas.tolist())
    with pytest.raises(ValueError, match="named svd-lcm"):
        started(scheduler, Level(1.0, 9.0), "rescale", Limits(distilled="its weights are named svd-lcm")).set_timesteps(
            12
        )


@pytest.mark.parametrize("cls", ["DDIMScheduler", "LCMScheduler", "HeunDiscreteScheduler", "DPMSolverSDEScheduler"])
def test_steps_left_out_of_a_table_of_betas(cls: str) -> None:
    plain = getattr(diffusers, cls)(beta_schedule="scaled_linear")
    process = process_of(plain)
    assert isinstance(process, VP)
    ours = started(plain, process.noisiest, "truncate", Limits(left_out=2))
    ours.set_timesteps(6)
    plain.set_timesteps(6)
    level = level_of_step(plain, 2)
    assert level_of_step(ours).flow_sigma == pytest.approx(level.flow_sigma)
    first = float(ours.timesteps[0])
    assert first == float(plain.timesteps[2 * plain.order])
    assert ours.timesteps[1:].tolist() == pytest.approx(plain.timesteps[2 * plain.order + 1 :].tolist(), rel=1e-6)


def test_pndm_cannot_leave_steps_out() -> None:
    plain = diffusers.PNDMScheduler(skip_prk_steps=True)
    with pytest.raises(ValueError, match="PNDM extrapolates over steps of equal length"):
        started(plain, process_of(plain).noisiest, "truncate", Limits(left_out=2))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lightx2v/Wan2.2-Lightning", True),
        ("Wan2.1-I2V-14B-480P-StepDistill-CfgDistill-Lightx2v", True),
        ("Wan21_CausVid_14B_T2V_lora_rank32", True),
        ("WanI2V_FusionX", True),
        ("ltx-2-19b-distilled", True),
        ("/models/animatelcm", True),
        ("wangfuyun/AnimateLCM-SVD-xt", True),
        ("FastVideo/FastWan2.2-TI2V-5B", True),
        ("Wan2_2-I2V-A14B-4steps-lora-rank64-Seko-V1", True),
        ("my-lora-step4000", False),
        ("my-lora-epoch1-step4000", False),
        ("my-lora-16steps", False),
        ("hunyuanvideo-1.5-480p_i2v_cfg_distilled", False),
        ("Wan-AI/Wan2.2-I2V-A14B-Diffusers", False),
        ("/home/turbo/models/wan", False),
        ("stabilityai/stable-video-diffusion-img2vid", False),
    ],
)
def test_distilled_models_are_known_by_name(name: str, expected: bool) -> None:
    pipe = SimpleNamespace(scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), name_or_path=name)
    assert (distilled(pipe, {}) is not None) == expected


def test_distilled_models_are_known_by_scheduler_lora_and_sigmas() -> None:
    from peft import LoraConfig

    pipe = lightning()
    assert distilled(pipe, {}) is None
    assert "Wan-Lightning" in distilled(pipe, {"sigmas": [1, 0.9375, 0.83333, 0.625]})
    assert grid_named([1.0, 0.75, 0.5, 0.25]) is None
    pipe.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q"]), adapter_name="lightx2v_high")
    assert distilled(pipe, {}) == "its weights are named lightx2v_high"
    pipe.transformer.disable_adapters()
    assert distilled(pipe, {}) is None
    pipe = SimpleNamespace(scheduler=diffusers.LCMScheduler())
    assert distilled(pipe, {}) == "its scheduler is LCMScheduler"


def test_a_start_of_steps_is_parsed_and_has_no_level_of_its_own() -> None:
    for text in ("step:2", "step=2", " STEP: 2"):
        assert Start.parse(text) == Start.step(2)
    assert str(Start.step(2)) == "step:2"
    assert Start.parse(str(Start.step(2))).steps_left_out == 2
    assert Start.parse("0.9T").steps_left_out == 0
    with pytest.raises(ValueError, match="has a level only where a schedule is set"):
        Start.step(2).resolve(process_of(diffusers.FlowMatchEulerDiscreteScheduler()))
    for text in ("step:-1", "step:1.5", "step:"):
        with pytest.raises(ValueError, match="is not understood"):
            Start.parse(text)


def test_a_start_above_the_plain_schedule_is_said() -> None:
    plain = diffusers.DDIMScheduler(beta_schedule="scaled_linear", timestep_spacing="leading")
    for mode in ("rescale", "truncate"):
        ours = started(plain, process_of(plain).level_at_timestep(940), mode)
        ours.set_timesteps(4)  # 750, 500, 250, 0 by itself
        assert ours.timesteps[0] == 939
        assert "which is noisier than where the plain schedule of 4 steps begins" in few_steps(ours, mode)
        ours.set_timesteps(50)
        assert few_steps(ours, mode) is None
