"""Every scheduler, both modes, every way of calling it: it starts at the level asked for and ends as it did."""

import copy
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from unleak.attach.schedule import (
    ADAPTERS,
    REFUSED,
    _adapter,
    few_steps,
    in_latents,
    nearest,
    process_of,
    started,
    steps_run,
)
from unleak.attach.schedulers.adapter import ScheduleAdapter
from unleak.attach.schedulers.ve import VarianceExploding
from unleak.attach.schedulers.vp import VPStrides
from unleak.core.process import RF, VE, VP, Level
from unleak.core.start import Start

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ZERO = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
CLEAN = {"clip_sample": False}
MODES = ("rescale", "truncate")


@dataclass(frozen=True)
class Case:
    cls: str
    config: dict = field(default_factory=dict)
    call: Callable[[int], dict] = lambda n: {"num_inference_steps": n}
    modes: tuple[str, ...] = MODES
    like: str | None = None
    """Another case to measure the landing by, where the plain scheduler of this one takes wrong strides."""

    def plain(self) -> Any:
        return getattr(diffusers, self.cls)(**self.config)

    def set(self, scheduler: Any, n: int) -> Any:
        scheduler.set_timesteps(**self.call(n))
        return scheduler


def to_one_over_n(n: int) -> dict:
    return {"sigmas": np.linspace(1.0, 1 / n, n)}


def to_zero(n: int) -> dict:
    return {"sigmas": np.linspace(1.0, 0.0, n + 1)[:-1]}


FLOW, KARRAS = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}, {"use_karras_sigmas": True}
DYNAMIC = {"use_dynamic_shifting": True}
COSMOS = {"sigma_min": 0.002, "sigma_max": 80.0}
EULER, FLOW_EULER = "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"
DPM, UNIPC = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"
SVD = {"sigma_min": 0.002, "sigma_max": 700.0, "timestep_type": "continuous", "prediction_type": "v_prediction"}


def cosmos2() -> Any:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)
    scheduler.register_to_config(**COSMOS, sigma_data=1.0, final_sigmas_type="sigma_min")  # as the pipeline does
    return scheduler


class Cosmos2(Case):
    def plain(self) -> Any:
        return cosmos2()


CASES = {
    "ddim-leading": Case("DDIMScheduler", SD | CLEAN | {"steps_offset": 1}),
    "ddim-linspace": Case("DDIMScheduler", SD | CLEAN | {"timestep_spacing": "linspace"}, like="euler"),
    "ddim-trailing-zero-snr": Case("DDIMScheduler", SD | CLEAN | ZERO | {"prediction_type": "v_prediction"}),
    "cog-ddim": Case("CogVideoXDDIMScheduler", CLEAN | ZERO | {"prediction_type": "v_prediction"}),
    "cog-ddim-leading": Case("CogVideoXDDIMScheduler", CLEAN | {"prediction_type": "v_prediction"}),
    "cog-dpm": Case("CogVideoXDPMScheduler", CLEAN | ZERO | {"prediction_type": "v_prediction"}),
    "ddpm": Case("DDPMScheduler", SD | CLEAN | {"timestep_spacing": "trailing"}),
    "ddpm-timesteps": Case(
        "DDPMScheduler",
        SD | CLEAN,
        lambda n: {"timesteps": np.linspace(999, 0, n).round().astype(int).tolist()},
    ),
    "lcm": Case("LCMScheduler", SD),
    "pndm": Case("PNDMScheduler", SD | {"skip_prk_steps": True, "steps_offset": 1}, modes=("rescale",)),
    "pndm-trailing": Case(
        "PNDMScheduler", SD | {"skip_prk_steps": True, "timestep_spacing": "trailing"}, modes=("rescale",)
    ),
    "euler": Case(EULER, SD),
    "euler-leading": Case(EULER, SD | {"timestep_spacing": "leading", "steps_offset": 1}),
    "euler-trailing": Case(EULER, SD | {"timestep_spacing": "trailing"}),
    "euler-zero-snr": Case(EULER, SD | ZERO | {"prediction_type": "v_prediction"}),
    "euler-karras": Case(EULER, SD | KARRAS),
    "euler-exponential": Case(EULER, SD | {"use_exponential_sigmas": True}),
    "euler-beta": Case(EULER, SD | {"use_beta_sigmas": True}),
    "euler-sigma-min": Case(EULER, SD | {"final_sigmas_type": "sigma_min"}),
    "euler-timesteps": Case(EULER, SD, lambda n: {"timesteps": np.linspace(999, 0, n).tolist()}),
    "svd": Case(EULER, SVD | KARRAS),
    "svd-exponential": Case(EULER, SVD | {"use_exponential_sigmas": True}),
    "euler-own-range": Case(EULER, KARRAS | COSMOS),
    "euler-ancestral": Case("EulerAncestralDiscreteScheduler", SD),
    "lms": Case("LMSDiscreteScheduler", SD | KARRAS),
    "heun": Case("HeunDiscreteScheduler", SD),
    "heun-karras": Case("HeunDiscreteScheduler", SD | KARRAS),
    "sde": Case("DPMSolverSDEScheduler", SD | KARRAS),
    "dpm": Case(DPM, SD),
    "dpm-leading": Case(DPM, SD | {"timestep_spacing": "leading", "steps_offset": 1}),
    "dpm-karras": Case(DPM, SD | KARRAS),
    "dpm-lu": Case(DPM, SD | {"use_lu_lambdas": True}),
    "dpm-exponential": Case(DPM, SD | {"use_exponential_sigmas": True}),
    "dpm-sde": Case(DPM, SD | {"algorithm_type": "sde-dpmsolver++"}),
    "dpm-zero-snr": Case(DPM, SD | ZERO | {"prediction_type": "v_prediction"}),
    "dpm-timesteps": Case(DPM, SD, lambda n: {"timesteps": np.linspace(999, 20, n).round().astype(int).tolist()}),
    "dpm-flow": Case(DPM, FLOW | {"flow_shift": 3.0}),
    "dpm-singlestep": Case("DPMSolverSinglestepScheduler", SD),
    "dpm-singlestep-3": Case("DPMSolverSinglestepScheduler", SD | {"solver_order": 3}),
    "deis": Case("DEISMultistepScheduler", SD),
    "unipc": Case(UNIPC, SD),
    "unipc-trailing": Case(UNIPC, SD | {"timestep_spacing": "trailing"}),
    "unipc-karras": Case(UNIPC, SD | KARRAS),
    "unipc-flow": Case(UNIPC, FLOW | {"flow_shift": 5.0}),
    "unipc-flow-sigmas": Case(UNIPC, FLOW | {"flow_shift": 3.0}, to_zero),
    "unipc-flow-mu": Case(UNIPC, FLOW | DYNAMIC, lambda n: to_one_over_n(n) | {"mu": 1.1}),
    "unipc-flow-sigma-min": Case(UNIPC, FLOW | {"flow_shift": 3.0, "final_sigmas_type": "sigma_min"}),
    "unipc-flow-karras": Case(UNIPC, FLOW | KARRAS | {"sigma_min": 0.01, "sigma_max": 200.0}),
    "flow": Case(FLOW_EULER),
    "flow-shift": Case(FLOW_EULER, {"shift": 5.0}),
    "flow-hunyuan": Case(FLOW_EULER, {"shift": 7.0}, to_zero),
    "flow-timesteps": Case(FLOW_EULER, {}, lambda n: {"timesteps": np.linspace(1000, 1000 / n, n).tolist()}),
    "flow-mu": Case(FLOW_EULER, DYNAMIC, lambda n: to_one_over_n(n) | {"mu": 1.5}),
    "flow-mu-linear": Case(
        FLOW_EULER, DYNAMIC | {"time_shift_type": "linear"}, lambda n: to_one_over_n(n) | {"mu": 2.0}
    ),
    "flow-ltx": Case(FLOW_EULER, DYNAMIC | {"shift_terminal": 0.1}, lambda n: to_one_over_n(n) | {"mu": 1.5}),
    "flow-karras": Case(FLOW_EULER, KARRAS | {"shift": 3.0}),
    "flow-exponential": Case(FLOW_EULER, {"use_exponential_sigmas": True}),
    "flow-beta": Case(FLOW_EULER, {"use_beta_sigmas": True, "shift": 3.0}),
    "flow-stochastic": Case(FLOW_EULER, {"stochastic_sampling": True, "shift": 3.0}),
    "flow-heun": Case("FlowMatchHeunDiscreteScheduler", {"shift": 3.0}),
    "flow-map": Case("FlowMapEulerDiscreteScheduler", {"shift": 5.0}),
    "ltx-ancestral": Case("LTXEulerAncestralRFScheduler", {"eta": 0.5}),
    "ltx-ancestral-sigmas": Case(
        "LTXEulerAncestralRFScheduler", {}, lambda n: {"sigmas": np.linspace(1, 0, n + 1).tolist()}
    ),
    "edm": Case("EDMEulerScheduler", COSMOS | {"sigma_data": 1.0, "final_sigmas_type": "sigma_min"}),
    "edm-exponential": Case("EDMEulerScheduler", {"sigma_schedule": "exponential"}),
    "cosmos2": Cosmos2(FLOW_EULER, {}, lambda n: {"sigmas": torch.linspace(0, 1, n, dtype=torch.float64)}),
}
each_case = pytest.mark.parametrize("name", CASES)
each_mode = pytest.mark.parametrize("mode", MODES)
PAIRS = [(name, mode) for name, case in CASES.items() for mode in case.modes]
each = pytest.mark.parametrize(("name", "mode"), PAIRS)
STARTS = {
    "VP": ["940", "0.9T", "sigma=5", "logsnr=-3"],
    "VE": ["0.9T", "sigma=40.5", "logsnr=-7", "timestep=0.61"],
    "RF": ["940", "0.9T", "sigma=0.8333", "logsnr=-3", "timestep=777.7"],
}


def lowered(name: str, mode: str, start: str, n: int) -> tuple[Any, Level]:
    """The scheduler of a case, set to n steps from `start`, and the level it has to start at."""
    case = CASES[name]
    plain = case.plain()
    process = process_of(plain)
    level = nearest(plain, Start.parse(start).resolve(process))
    return case.set(started(plain, level, mode), n), level


def levels(scheduler: Any) -> torch.Tensor:
    """The sigma (RF) or sigma / alpha (VP, VE) of each step, read from what the scheduler's own step reads."""
    if hasattr(scheduler, "sigmas"):
        return scheduler.sigmas[:: scheduler.order][: steps_run(scheduler)].double()
    alphas = scheduler.alphas_cumprod[scheduler.timesteps].double()
    return ((1 - alphas) / alphas).sqrt()


def told(scheduler: Any, process: Any) -> np.ndarray:
    """The sigmas that belong to the timesteps which the network is told."""
    timesteps = scheduler.timesteps[:: scheduler.order][
        : steps_run(scheduler) + (type(scheduler).__name__[:4] == "PNDM")
    ]
    t = timesteps.double().numpy()
    if isinstance(process, RF):
        return t / 1000
    if isinstance(process, VE) and "alphas_cumprod" not in vars(scheduler):
        return t / 1000 if "shift" in scheduler.config else np.exp(4 * t)
    if scheduler.config.get("timestep_type") == "continuous":
        return np.exp(4 * t)
    alphas = scheduler.alphas_cumprod[:999].double().numpy()  # the last may be 0
    return np.exp(np.interp(t, np.arange(999), 0.5 * np.log(1 / alphas - 1)))


def step_counts() -> list[Any]:
    """Each case with 25 steps; the smallest schedules once for each kind of adapter, which alone moves the nodes."""
    seen, found = set(), []
    for name, mode in PAIRS:
        plain = CASES[name].plain()
        few = [9] if keeps_few(plain) else [1, 4]
        kind = (type(_adapter(plain)), mode)
        found += [pytest.param(name, mode, n, id=f"{name}-{mode}-{n}") for n in [25, *(() if kind in seen else few)]]
        seen.add(kind)
    return found


def keeps_few(scheduler: Any) -> bool:
    """Whether a schedule of at most 8 steps keeps to its own levels."""
    return isinstance(process_of(scheduler), RF) and "FlowMap" not in type(scheduler).__name__


@pytest.mark.parametrize(("name", "mode", "n"), step_counts())
def test_first_level_is_the_level_asked_for(name: str, mode: str, n: int) -> None:
    case, process = CASES[name], process_of(CASES[name].plain())
    plain = case.set(case.plain(), n)
    for start in STARTS[process.kind]:
        scheduler, level = lowered(name, mode, start, n)
        sigmas, asked = levels(scheduler), process.sigma_of(level)
        assert sigmas[0].item() == pytest.approx(asked, rel=3e-6)  # alpha^2 is 1 - a sum of float32
        assert told(scheduler, process)[0] == pytest.approx(asked, rel=3e-6, abs=1e-3 * (process.kind == "RF"))
        assert (sigmas.unique_consecutive().diff() < 0).all()
        assert steps_run(scheduler) == (n if mode == "rescale" else steps_run(scheduler)) <= n
        assert len(scheduler.timesteps) == len(plain.timesteps) - scheduler.order * (n - steps_run(scheduler))
        assert scheduler.num_inference_steps == steps_run(scheduler)
        if hasattr(plain, "sigmas") and plain.sigmas[-1] != plain.sigmas[-2]:
            assert scheduler.sigmas[-1] == plain.sigmas[-1]
        factor = getattr(scheduler, "init_noise_sigma", None)
        if factor is not None and not isinstance(plain.init_noise_sigma, float):  # a property of sigmas
            edges = (asked, math.hypot(asked, 1))
            assert any(float(factor) == pytest.approx(edge, rel=1e-5) for edge in edges)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if keeps_few(case.plain())])
@pytest.mark.parametrize("n", [2, 4, 8])
def test_a_flow_of_few_steps_gets_no_level_that_it_lacks(name: str, n: int) -> None:
    plain = CASES[name].set(CASES[name].plain(), n)
    for start in STARTS["RF"]:
        scheduler, level = lowered(name, "truncate", start, n)
        own, kept = levels(plain), levels(scheduler)
        assert torch.equal(kept, own[-len(kept) :])
        assert kept[0] <= level.sigma * (1 + 1e-6) or len(kept) == 1
        assert len(kept) == n or own[-len(kept) - 1] > level.sigma * (1 - 1e-6)
        assert torch.equal(scheduler.timesteps[-len(kept) :: plain.order], plain.timesteps[-len(kept) :: plain.order])
        with pytest.raises(ValueError, match=r"noise levels that the schedule .* lacks"):
            lowered(name, "rescale", start, n)


@each
def test_full_start_is_the_plain_schedule_bit_for_bit(name: str, mode: str) -> None:
    case = CASES[name]
    plain, process = case.plain(), process_of(case.plain())
    ours = case.set(started(plain, process.noisiest, mode), 7)
    case.set(plain, 7)
    assert "set_timesteps" not in vars(ours)
    assert "step" not in vars(ours)
    assert torch.equal(ours.timesteps, plain.timesteps)
    assert dict(ours.config) == dict(plain.config)
    if hasattr(plain, "sigmas"):
        assert torch.equal(ours.sigmas, plain.sigmas)


MEAN, STD = 0.7, 0.4


def sampled(scheduler: Any, process: Any, level: Level) -> tuple[float, float]:
    """Mean and std where a scheduler lands with the exact denoiser of N(MEAN, STD^2), from the exact marginal."""
    eps = torch.randn(1, 1, 64, 256, generator=torch.Generator().manual_seed(0))
    start = in_latents(scheduler, level)
    x = start.alpha * MEAN + math.hypot(start.alpha * STD, start.sigma) * (eps - eps.mean()) / eps.std()
    accepts = inspect.signature(scheduler.step).parameters
    extra = {"generator": torch.Generator().manual_seed(1)} if "generator" in accepts else {}
    old, back, own = None, None, isinstance(process, VE) and "alphas_cumprod" not in vars(scheduler)
    for t, sigma in zip(scheduler.timesteps, visited(scheduler), strict=False):  # an end that is told is not visited
        seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        if isinstance(process, RF):
            alpha, noise = 1 - sigma, sigma
        elif own:  # such pipelines scale the input themselves
            alpha, noise, seen = 1.0, sigma, x
        else:
            alpha, noise = 1 / math.hypot(1, sigma), 1 / math.hypot(1, 1 / sigma)
        clean = MEAN + alpha * STD**2 / ((alpha * STD) ** 2 + noise**2) * (seen - alpha * MEAN)
        e = (seen - alpha * clean) / noise
        outputs = {"epsilon": e, "v_prediction": alpha * e - noise * clean}
        output = outputs.get(scheduler.config.get("prediction_type", ""), (seen - clean) / noise)
        if "old_pred_original_sample" in accepts:
            x, old = scheduler.step(output, old, t, back, x, return_dict=False, **extra)
        else:
            given = {"pred_original_sample": clean} if "pred_original_sample" in accepts else {}
            x = scheduler.step(output, t, x, return_dict=False, **given, **extra)[0]
        back = t
    return x.mean().item(), x.std().item()


def visited(scheduler: Any) -> list[float]:
    """sigma (RF) or sigma / alpha wherever the network is called."""
    if hasattr(scheduler, "sigmas"):
        sigmas = scheduler.sigmas.tolist()
        if type(scheduler).__name__ == "DPMSolverSDEScheduler":
            return [math.sqrt(sigmas[i - 1] * s) if i % 2 else s for i, s in enumerate(sigmas[:-1])]
        return sigmas[:-1]
    alphas = scheduler.alphas_cumprod[scheduler.timesteps].double()
    return [math.sqrt(1 / alpha - 1) if alpha else 1e9 for alpha in alphas.tolist()]


@each
def test_the_exact_denoiser_lands_on_the_data_as_well_as_from_the_full_start(name: str, mode: str) -> None:
    case, process = CASES[name], process_of(CASES[name].plain())
    measure = CASES[case.like] if case.like else case
    plain = sampled(measure.set(measure.plain(), 25), process, process.noisiest)
    ours, level = lowered(name, mode, "0.9T", 25)
    for got, expected, truth in zip(sampled(ours, process, level), plain, (MEAN, STD), strict=True):
        assert abs(got - truth) <= 1.2 * abs(expected - truth) + 0.01, (got, expected, truth)


STRIDES = ("ddim-leading", "ddim-linspace", "ddim-trailing-zero-snr", "cog-ddim", "pndm", "pndm-trailing")


@pytest.mark.parametrize(("name", "mode"), [pair for pair in PAIRS if pair[0] in STRIDES])
def test_each_stride_leads_to_the_next_level(name: str, mode: str) -> None:
    scheduler, _ = lowered(name, mode, "0.87T", 9)
    x_0, e = torch.randn(2, 1, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sigmas = [*visited(scheduler), math.sqrt(1 / scheduler.final_alpha_cumprod.item() - 1)]
    at = [(x_0 + sigma * e) / math.hypot(1, sigma) for sigma in sigmas]
    x = at[0]
    for t, sigma, there in zip(scheduler.timesteps, sigmas, at[1:], strict=False):
        v = (e - sigma * x_0) / math.hypot(1, sigma)
        x = scheduler.step(v if scheduler.config.prediction_type == "v_prediction" else e, t, x, return_dict=False)[0]
        torch.testing.assert_close(x, there, rtol=1e-4, atol=1e-4)


def test_every_adapter_has_a_case_and_nothing_is_both_supported_and_refused() -> None:
    assert {case.cls for case in CASES.values()} == set(ADAPTERS)
    assert not set(ADAPTERS) & set(REFUSED)
    assert all(hasattr(diffusers, name) for name in [*ADAPTERS, *REFUSED])


@each
def test_what_is_put_on_the_copy_is_bound_to_it_and_looks_like_what_it_replaces(name: str, mode: str) -> None:
    case = CASES[name]
    plain = case.plain()
    before, config = set(vars(plain)), dict(plain.config)
    ours, _ = lowered(name, mode, "0.9T", 10)
    twin = copy.deepcopy(ours)
    timesteps, ours.timesteps = ours.timesteps, None
    case.set(twin, 10)
    assert torch.equal(twin.timesteps, timesteps)
    assert ours.timesteps is None  # the copy's method worked on the copy
    case.set(twin, 14)  # some pipelines set it anew for every section of a video
    case.set(twin, 10)
    assert torch.equal(twin.timesteps, timesteps)
    assert (set(vars(plain)), dict(plain.config)) == (before, config)
    for method in ("set_timesteps", "step"):
        assert inspect.signature(getattr(ours, method)) == inspect.signature(getattr(plain, method))


@pytest.mark.parametrize("name", [name for name, mode in PAIRS if mode == "truncate"])
def test_truncate_keeps_the_plain_nodes_below_the_start(name: str) -> None:
    case = CASES[name]
    plain = case.set(case.plain(), 25)
    ours, _ = lowered(name, "truncate", "0.9T", 25)
    kept = steps_run(ours) - 1
    assert 10 < kept < 25
    last = 2 * kept - 1 if plain.order == 2 else kept
    assert torch.equal(ours.timesteps[-last :: plain.order], plain.timesteps[-last :: plain.order])
    assert torch.equal(levels(ours)[1:], levels(plain)[-kept:])
    assert levels(plain)[-kept - 1] >= levels(ours)[0]  # and all of those


@pytest.mark.parametrize("n", [20, 25])  # 940 = 47 * 20; 25 does not divide it
@pytest.mark.parametrize("name", ["ddim-trailing-zero-snr", "euler", "euler-trailing", "heun", "dpm", "unipc", "lms"])
def test_rescale_is_a_scheduler_of_the_first_timesteps_only(name: str, n: int) -> None:
    case = CASES[name]
    ours, _ = lowered(name, "rescale", "940", n)
    theirs = case.plain()
    theirs.register_to_config(num_train_timesteps=940)
    for table in ("alphas_cumprod", "lambda_t"):
        if hasattr(theirs, table):
            setattr(theirs, table, getattr(theirs, table)[:940])
    case.set(theirs, n)
    if name == "lms":  # Karras
        torch.testing.assert_close(ours.sigmas, theirs.sigmas, rtol=1e-5, atol=0)
        return
    assert torch.equal(ours.timesteps, theirs.timesteps[: len(ours.timesteps)])  # "trailing" may lay a step too many
    if hasattr(ours, "sigmas"):
        assert torch.equal(ours.sigmas, theirs.sigmas)
    elif n == 20:
        x, e = torch.randn(2, 1, 1, 2, 2)
        for t in ours.timesteps:
            assert torch.equal(ours.step(e, t, x).prev_sample, theirs.step(e, t, x).prev_sample)


@pytest.mark.parametrize("name", ["flow-shift", "flow-hunyuan", "flow-mu", "unipc-flow", "unipc-flow-mu", "flow-map"])
def test_rescale_of_a_flow_scales_the_unshifted_grid(name: str) -> None:
    case = CASES[name]
    ours, level = lowered(name, "rescale", "0.9T", 10)
    plain = case.set(case.plain(), 10).sigmas.double()
    shift = {"flow-shift": 5, "flow-hunyuan": 7, "flow-mu": math.exp(1.5), "unipc-flow": 5, "flow-map": 5}.get(
        name, math.exp(1.1)
    )
    unshifted = plain / (shift - (shift - 1) * plain)
    factor = 0.9 / (shift - (shift - 1) * 0.9) / unshifted[0]
    scaled = factor * unshifted
    torch.testing.assert_close(ours.sigmas.double(), shift * scaled / (1 + (shift - 1) * scaled), rtol=1e-5, atol=1e-7)
    assert level == Level(1 - 0.9, 0.9)


@pytest.mark.parametrize(
    "name", ["flow-ltx", "flow-karras", "flow-exponential", "flow-beta", "unipc-flow-karras", "dpm-karras"]
)
def test_rescale_keeps_the_end_of_a_spaced_or_stretched_grid(name: str) -> None:
    case = CASES[name]
    ours, _ = lowered(name, "rescale", "0.9T", 10)
    assert torch.equal(ours.sigmas[-2:], case.set(case.plain(), 10).sigmas[-2:])


NOISED = [
    name
    for name, case in CASES.items()
    if name not in ("cosmos2", "ltx-ancestral", "ltx-ancestral-sigmas")  # which cannot, as plain ones cannot
]


@pytest.mark.parametrize("name", NOISED)
def test_noise_is_added_at_the_start_as_the_level_says(name: str) -> None:
    scheduler, level = lowered(name, "rescale", "0.9T", 9)
    level, x, e = in_latents(scheduler, level), torch.tensor([[2.0]]), torch.tensor([[3.0]])
    t = scheduler.timesteps[:1]
    if isinstance(process_of(CASES[name].plain()), VP):  # FreeInit
        assert t.item() == scheduler.config.num_train_timesteps - 1
    noised = scheduler.add_noise(x, e, t) if hasattr(scheduler, "add_noise") else scheduler.scale_noise(x, t, e)
    torch.testing.assert_close(noised, level.alpha * x + level.sigma * e, rtol=2e-6, atol=0)


def test_a_vp_start_is_a_training_timestep() -> None:
    scheduler = CASES["ddim-leading"].plain()
    process = process_of(scheduler)
    between = process.level_at_timestep(899.7)
    assert nearest(scheduler, between) == process.level_at_timestep(900)
    ours = started(scheduler, between, "truncate")
    ours.set_timesteps(10)
    assert ours.timesteps.tolist() == [899, 801, 701, 601, 501, 401, 301, 201, 101, 1]
    flow = CASES["flow"].plain()
    assert nearest(flow, Level(1 - 0.8997, 0.8997)) == Level(1 - 0.8997, 0.8997)


def test_latents_of_euler_over_betas_are_variance_exploding() -> None:
    level = process_of(CASES["euler"].plain()).level_at_timestep(940)
    assert in_latents(CASES["euler"].plain(), level) == Level(1.0, level.sigma / level.alpha)
    assert in_latents(CASES["dpm"].plain(), level) == level


def test_few_steps_say_how_many_will_be_run() -> None:
    ours = started(CASES["flow-shift"].plain(), Level(1 - 0.9, 0.9), "truncate")
    ours.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])  # 1, 0.9375, 0.8333, 0.625 after the shift
    np.testing.assert_allclose(ours.sigmas, [0.8333, 0.625, 0], atol=1e-4)
    assert "asked for at sigma 0.9 and moves to 0.8333" in few_steps(ours, "truncate")
    assert "2 of 4 steps are run (start='step:2')" in few_steps(ours, "truncate")
    ours.set_timesteps(12)
    assert few_steps(ours, "truncate") is None
    plain = CASES["euler"].plain()
    for mode, words in {
        "truncate": "of 4 steps are run. With",
        "rescale": "all 4 steps are run, at new noise levels",
    }.items():
        vp = started(plain, process_of(plain).level_at_timestep(900), mode)
        vp.set_timesteps(4)
        assert words in few_steps(vp, mode)


REFUSALS = {
    "unknown": (diffusers.IPNDMScheduler(), "rescale", r"does not know IPNDMScheduler.*one of CogVideoXDDIMScheduler"),
    "helios": (diffusers.HeliosScheduler(), "rescale", "stages of growing resolution"),
    "piflow": (diffusers.PiflowScheduler(), "rescale", "distilled for its own time segments"),
    "pndm": (CASES["pndm"].plain(), "truncate", r"use mode='rescale', or DDIMScheduler.from_config"),
    "pndm-prk": (diffusers.PNDMScheduler(), "rescale", "skip_prk_steps=True"),
    "inverted": (diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True), "rescale", "invert_sigmas=False"),
    "svd-unspaced": (diffusers.EulerDiscreteScheduler(**SVD), "rescale", "takes its sigmas from betas"),
    "log-linear": (
        diffusers.EulerDiscreteScheduler(interpolation_type="log_linear"),
        "rescale",
        "leave it at 'linear'",
    ),
    "dpm-flow-karras": (
        diffusers.DPMSolverMultistepScheduler(**FLOW, **KARRAS),
        "rescale",
        "over betas, not over flow",
    ),
    "solver-p": (diffusers.UniPCMultistepScheduler(solver_p=diffusers.DDIMScheduler()), "rescale", "leave solver_p"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_done_is_refused_with_what_can(name: str) -> None:
    scheduler, mode, message = REFUSALS[name]
    with pytest.raises(ValueError, match=message):
        started(scheduler, process_of(scheduler).level_at_fraction(0.9), mode)


def test_too_many_steps_for_the_timesteps_that_are_left_are_refused() -> None:
    scheduler, _ = lowered("ddim-trailing-zero-snr", "rescale", "30", 25)
    assert steps_run(scheduler) == 25
    with pytest.raises(ValueError, match="only 30 timesteps lie at or below this start, too few for 50 steps"):
        scheduler.set_timesteps(50)


def test_timesteps_that_are_not_those_of_the_sigmas_are_refused() -> None:
    scheduler = started(CASES["flow-shift"].plain(), Level(1 - 0.9, 0.9), "rescale")
    with pytest.raises(ValueError, match="give sigmas, or a scheduler with shift=1"):
        scheduler.set_timesteps(timesteps=[1000, 750, 500, 250])


@each_mode
def test_the_tests_notice_if_the_grid_is_not_moved(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScheduleAdapter, "move", lambda *args: None)
    monkeypatch.setattr(VarianceExploding, "laid", ScheduleAdapter.laid)
    for name in [name for name, own in PAIRS if own == mode]:
        with pytest.raises(AssertionError):
            test_first_level_is_the_level_asked_for(name, mode, 25)


def test_the_tests_notice_if_strides_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VPStrides, "start", ScheduleAdapter.start)
    for name in STRIDES:
        with pytest.raises(AssertionError):
            test_each_stride_leads_to_the_next_level(name, CASES[name].modes[-1])
