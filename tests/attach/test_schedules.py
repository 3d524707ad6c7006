"""Every scheduler, both modes, every way of calling it: it starts at the level asked for and ends as it did."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from unleak.attach.schedule import in_latents, nearest, process_of, started, steps_run
from unleak.core.process import RF, VE, Level
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
    noise: bool = False

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
    "ddim-linspace": Case("DDIMScheduler", SD | CLEAN | {"timestep_spacing": "linspace"}),
    "ddim-trailing-zero-snr": Case("DDIMScheduler", SD | CLEAN | ZERO | {"prediction_type": "v_prediction"}),
    "cog-ddim": Case("CogVideoXDDIMScheduler", CLEAN | ZERO | {"prediction_type": "v_prediction"}),
    "cog-ddim-leading": Case("CogVideoXDDIMScheduler", CLEAN | {"prediction_type": "v_prediction"}),
    "cog-dpm": Case("CogVideoXDPMScheduler", CLEAN | ZERO | {"prediction_type": "v_prediction"}, noise=True),
    "ddpm": Case("DDPMScheduler", SD | CLEAN | {"timestep_spacing": "trailing"}, noise=True),
    "ddpm-timesteps": Case(
        "DDPMScheduler",
        SD | CLEAN,
        lambda n: {"timesteps": np.linspace(999, 0, n).round().astype(int).tolist()},
        noise=True,
    ),
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
    "euler-ancestral": Case("EulerAncestralDiscreteScheduler", SD, noise=True),
    "lms": Case("LMSDiscreteScheduler", SD | KARRAS),
    "heun": Case("HeunDiscreteScheduler", SD),
    "heun-karras": Case("HeunDiscreteScheduler", SD | KARRAS),
    "sde": Case("DPMSolverSDEScheduler", SD | KARRAS, noise=True),
    "dpm": Case(DPM, SD),
    "dpm-leading": Case(DPM, SD | {"timestep_spacing": "leading", "steps_offset": 1}),
    "dpm-karras": Case(DPM, SD | KARRAS),
    "dpm-lu": Case(DPM, SD | {"use_lu_lambdas": True}),
    "dpm-exponential": Case(DPM, SD | {"use_exponential_sigmas": True}),
    "dpm-sde": Case(DPM, SD | {"algorithm_type": "sde-dpmsolver++"}, noise=True),
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
    "flow-stochastic": Case(FLOW_EULER, {"stochastic_sampling": True, "shift": 3.0}, noise=True),
    "flow-heun": Case("FlowMatchHeunDiscreteScheduler", {"shift": 3.0}),
    "flow-map": Case("FlowMapEulerDiscreteScheduler", {"shift": 5.0}),
    "ltx-ancestral": Case("LTXEulerAncestralRFScheduler", {"eta": 0.5}, noise=True),
    "ltx-ancestral-sigmas": Case(
        "LTXEulerAncestralRFScheduler", {}, lambda n: {"sigmas": np.linspace(1, 0, n + 1).tolist()}, noise=True
    ),
    "edm": Case("EDMEulerScheduler", COSMOS | {"sigma_data": 1.0, "final_sigmas_type": "sigma_min"}),
    "edm-exponential": Case("EDMEulerScheduler", {"sigma_schedule": "exponential"}),
    "cosmos2": Cosmos2(FLOW_EULER, {}, lambda n: {"sigmas": torch.linspace(0, 1, n, dtype=torch.float64)}),
}
each_case = pytest.mark.parametrize("name", CASES)
each_mode = pytest.mark.parametrize("mode", MODES)
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


@each_case
@each_mode
@pytest.mark.parametrize("n", [1, 4, 25])
def test_first_level_is_the_level_asked_for(name: str, mode: str, n: int) -> None:
    case, process = CASES[name], process_of(CASES[name].plain())
    if mode not in case.modes:
        return
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


@each_case
@each_mode
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


@each_case
@each_mode
def test_the_exact_denoiser_lands_on_the_data_as_well_as_from_the_full_start(name: str, mode: str) -> None:
    case, process = CASES[name], process_of(CASES[name].plain())
    if mode not in case.modes:
        return
    plain = sampled(case.set(case.plain(), 25), process, process.noisiest)
    ours, level = lowered(name, mode, "0.9T", 25)
    for got, expected, truth in zip(sampled(ours, process, level), plain, (MEAN, STD), strict=True):
        assert abs(got - truth) <= 1.2 * abs(expected - truth) + 0.01, (got, expected, truth)
