"""Schedulers over a table of alphas_cumprod: those that keep timesteps only, and those that keep sigmas as well."""

from functools import wraps
from inspect import signature
from types import MethodType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from unleak.attach.plan import Mode
from unleak.attach.schedulers.adapter import Limits, Nodes, ScheduleAdapter, evenly, float64, like
from unleak.core.grid import Coordinate, Exponential, Karras, Plain, spaced_from
from unleak.core.process import VP, Level

__all__ = [
    "PNDM",
    "Exploded",
    "Singlestep",
    "Stochastic",
    "VPStrides",
    "VPTimesteps",
    "VariancePreserving",
    "spacing",
]

_ANCHORS = {"linspace": 0.0, "trailing": -1.0}  # the timestep towards which each spacing counts down


class VariancePreserving(ScheduleAdapter):
    """Keeps sigmas (sigma / alpha) and timesteps: DPM++, UniPC, DEIS over betas.

    A start is a whole training timestep, since the networks were trained on no others: index M - 1 of the table.
    """

    def process(self, scheduler: Any) -> VP:
        """Return VP of its alphas_cumprod. ValueError for settings that no start holds for."""
        config = scheduler.config
        if config.get("timestep_type") == "continuous" and config.prediction_type == "v_prediction":
            raise ValueError(
                "this scheduler tells the network 0.25 ln sigma but takes its sigmas from betas: give it the sigma_min"
                " and sigma_max of its model (for SVD: use_karras_sigmas, sigma_min 0.002, sigma_max 700)."
            )
        if config.get("interpolation_type") == "log_linear":
            raise ValueError("interpolation_type='log_linear' lays more sigmas than timesteps: leave it at 'linear'.")
        if config.get("solver_p"):
            raise ValueError("a scheduler inside the scheduler (solver_p) keeps its own start: leave solver_p unset.")
        return VP(scheduler.alphas_cumprod)

    def nearest(self, scheduler: Any, level: Level) -> Level:
        """Return the level of the nearest training timestep."""
        process = self.process(scheduler)
        return process.level_at_timestep(round(process.timestep_of(level)))

    def presented(self, scheduler: Any, level: Level) -> dict[str, Any]:
        """Return M as num_train_timesteps, since FreeInit adds noise up to num_train_timesteps - 1."""
        return {"num_train_timesteps": round(self.process(scheduler).timestep_of(level))}

    def first(self, scheduler: Any, level: Level) -> Nodes:
        """Return index M - 1 of the table."""
        index = round(self.process(scheduler).timestep_of(level)) - 1
        return Nodes(_sigmas(scheduler)[[index]], np.array([float(index)]))

    def respaced(self, scheduler: Any, plain: Nodes, first: Nodes, arguments: dict[str, Any]) -> Nodes:
        """Space the nodes evenly in timestep, as the scheduler does, or in its Karras, exponential or beta time."""
        table, whole = _sigmas(scheduler), not scheduler.timesteps.is_floating_point()
        if spaced := spacing(scheduler):
            sigmas = spaced_from(plain.sigmas, first.sigmas.item(), spaced, plain.sigmas[-1])
            timesteps = np.interp(np.log(sigmas), np.log(table), np.arange(len(table)))
            return Nodes.join(first, Nodes(sigmas, np.round(timesteps) if whole else timesteps)[1:])
        kind = scheduler.config.get("timestep_spacing", "linspace")
        anchor = _ANCHORS.get(kind, float(scheduler.config.get("steps_offset", 0)))
        if arguments.get("timesteps") is None:  # even, but for the rounding of the plain timesteps
            intervals = len(plain) - (plain.timesteps[-1] == anchor)
            timesteps = np.linspace(first.timesteps.item(), anchor, intervals + 1)[: len(plain)]
        else:
            timesteps = evenly(plain.timesteps, first.timesteps.item(), anchor)
        if whole or kind != "linspace":
            timesteps = np.round(timesteps - anchor) + anchor
        timesteps = float64(like(scheduler.timesteps, timesteps))  # the precision at which it interpolates
        if (np.diff(timesteps) >= 0).any() or timesteps[-1] < 0:
            raise ValueError(
                f"only {first.timesteps.item() + 1:g} timesteps lie at or below this start, too few for {len(plain)}"
                " steps: ask for fewer steps, a higher start, or mode='truncate'."
            )
        return Nodes(np.interp(timesteps, np.arange(len(table)), table), timesteps)


class Exploded(VariancePreserving):
    """Euler, ancestral Euler, Heun, LMS: between steps the latents are x_t / alpha, variance exploding."""

    def in_latents(self, level: Level) -> Level:
        """Return the level of x_0 + (sigma / alpha) eps."""
        return Level(1.0, level.edm_sigma)


class Singlestep(VariancePreserving):
    """DPMSolverSinglestepScheduler, which plans the order of each step beforehand."""

    def write(self, scheduler: Any, nodes: Nodes) -> None:
        """Write the nodes, and plan the orders anew."""
        super().write(scheduler, nodes)
        if len(nodes) % scheduler.config.solver_order:  # as its own set_timesteps does
            scheduler.register_to_config(lower_order_final=True)
        scheduler.order_list = scheduler.get_order_list(len(nodes))


class Stochastic(Exploded):
    """DPMSolverSDEScheduler: between two nodes it visits their geometric mean."""

    def write(self, scheduler: Any, nodes: Nodes) -> None:
        """Write the nodes, and the means between them."""
        super().write(scheduler, nodes)
        table = _sigmas(scheduler)
        between = np.interp(np.log(nodes.sigmas[1:] * nodes.sigmas[:-1]) / 2, np.log(table), np.arange(len(table)))
        scheduler.timesteps[1::2] = like(scheduler.timesteps, between)


class VPTimesteps(VariancePreserving):
    """Keeps timesteps only and looks the next one up: DDPM, LCM."""

    def nodes(self, scheduler: Any) -> Nodes:
        """Return the nodes, with the sigmas of the table."""
        timesteps = scheduler.timesteps.cpu().numpy()
        return Nodes(_sigmas(scheduler)[timesteps], timesteps.astype(np.float64))

    def write(self, scheduler: Any, nodes: Nodes) -> None:
        """Write the timesteps, which are all that such a scheduler keeps."""
        scheduler.timesteps = like(scheduler.timesteps, nodes.timesteps)
        scheduler.num_inference_steps = len(nodes)


class VPStrides(VPTimesteps):
    """Keeps timesteps only and steps by num_train_timesteps // num_inference_steps: DDIM and CogVideoX's.

    That stride is wrong wherever the grid is uneven, so each step gets the distance to the next timestep.
    """

    def start(self, scheduler: Any, level: Level, mode: Mode, limits: Limits) -> None:
        """Make schedules start, and `step` go to the next timestep."""
        super().start(scheduler, level, mode, limits)
        adapter, plain = self, type(scheduler).step
        arguments_of = signature(plain)

        @wraps(plain)
        def step(self: Any, *args: Any, **kwargs: Any) -> Any:
            presented = self.config.num_train_timesteps
            stride = adapter.stride(self, int(arguments_of.bind(self, *args, **kwargs).arguments["timestep"]))
            self.register_to_config(num_train_timesteps=stride * self.num_inference_steps)
            try:
                return plain(self, *args, **kwargs)
            finally:
                self.register_to_config(num_train_timesteps=presented)

        scheduler.step = MethodType(step, scheduler)

    def stride(self, scheduler: Any, timestep: int) -> int:
        """Return the distance from `timestep` to the next one; from the last one to the end, past 0."""
        below = scheduler.timesteps[scheduler.timesteps < timestep]
        return timestep - (int(below[0]) if len(below) else -1)


class PNDM(VPStrides):
    """PNDMScheduler, which visits its second timestep twice: there, its linear multistep method begins."""

    def refusal(self, scheduler: Any, mode: Mode) -> str | None:
        """Return why PNDM cannot start lower: its history has to be of equal steps."""
        if mode == "truncate":
            return (
                "PNDM extrapolates over steps of equal length, so its first step cannot be cut shorter: use"
                " mode='rescale', or DDIMScheduler.from_config(pipe.scheduler.config), which can be truncated"
            )
        if not scheduler.config.skip_prk_steps:
            return (
                "PNDM's Runge-Kutta steps visit timesteps between those of its grid: give it skip_prk_steps=True (as"
                " Stable Diffusion does), or use DDIMScheduler.from_config(pipe.scheduler.config)"
            )
        return None

    def nodes(self, scheduler: Any) -> Nodes:
        """Return the nodes; the second one is visited twice, and counts once."""
        visits = super().nodes(scheduler)
        return visits[np.arange(len(visits)) != 1]

    def calls(self, scheduler: Any) -> int:
        """Return one more than the steps, since the first one is made twice."""
        return len(self.nodes(scheduler)) + (len(scheduler.timesteps) > 1)

    def step_of(self, scheduler: Any, calls: int) -> int:
        """Return the step that a call makes; the first two calls make the first."""
        del scheduler
        return max(calls - 1, 0)

    def write(self, scheduler: Any, nodes: Nodes) -> None:
        """Write the nodes; the second one is visited twice."""
        super().write(scheduler, nodes[np.repeat(np.arange(len(nodes)), [1, 2, *[1] * len(nodes)][: len(nodes)])])
        scheduler.plms_timesteps = scheduler.timesteps.cpu().numpy()
        scheduler.num_inference_steps = len(nodes)

    def stride(self, scheduler: Any, timestep: int) -> int:
        """Return the distance to the next timestep; at the second visit to the second one, the one that led there."""
        if scheduler.counter == 1:
            return int(scheduler.timesteps[0]) - timestep
        return super().stride(scheduler, timestep)


def spacing(scheduler: Any) -> Coordinate | None:
    """Return the time, a function of sigma, in which a Karras, exponential, Lu or beta grid is even, else None."""
    config = scheduler.config
    if config.get("use_karras_sigmas"):
        return Karras()
    if config.get("use_exponential_sigmas") or config.get("use_lu_lambdas"):
        return Exponential()
    if config.get("use_beta_sigmas"):
        return Plain()
    return None


def _sigmas(scheduler: Any) -> Float64[np.ndarray, " T"]:
    """Return sigma / alpha of every training timestep, rounded as the schedulers' own arithmetic rounds."""
    alphas_cumprod: torch.Tensor = scheduler.alphas_cumprod.cpu()
    sigmas: Float64[np.ndarray, " T"] = (((1 - alphas_cumprod) / alphas_cumprod) ** 0.5).double().numpy()
    return sigmas
