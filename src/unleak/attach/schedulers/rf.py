"""Rectified-flow schedulers: a grid even in an unshifted time, shifted, perhaps stretched to a terminal sigma."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float64

from unleak.attach.plan import Mode
from unleak.attach.schedulers.adapter import Limits, Nodes, ScheduleAdapter
from unleak.attach.schedulers.vp import spacing
from unleak.core.grid import Coordinate, Flow, Karras, few_steps, spaced_from
from unleak.core.process import RF, Level

__all__ = ["RectifiedFlow"]


class RectifiedFlow(ScheduleAdapter):
    """FlowMatchEuler, FlowMatchHeun, LTX's ancestral Euler, AnyFlow's flow map; UniPC, DPM++, DEIS with flow sigmas.

    Solvers that give the network whole timesteps (UniPC, DPM++) truncate them; their sigma is exact.
    """

    def fits(self, scheduler: Any) -> bool:
        """Return whether it has flow sigmas: solvers of both kinds say which."""
        return bool(scheduler.config.get("use_flow_sigmas", True))

    def process(self, scheduler: Any) -> RF:
        """Return RF, after any shift. ValueError for settings that no start holds for."""
        config = scheduler.config
        if config.get("invert_sigmas"):
            raise ValueError(
                "this scheduler has invert_sigmas=True: its sigma counts the signal, not the noise, and unleak cannot"
                " tell where sampling would start; use a scheduler with invert_sigmas=False."
            )
        if "use_flow_sigmas" in config and spacing(scheduler) and not _karras_flow(scheduler):
            raise ValueError(
                f"{type(scheduler).__name__} lays its Karras, exponential or beta grid over betas, not over flow"
                " sigmas: leave that spacing off, or use FlowMatchEulerDiscreteScheduler, which has them for flows."
            )
        if config.get("solver_p"):
            raise ValueError("a scheduler inside the scheduler (solver_p) keeps its own start: leave solver_p unset.")
        return RF(config.num_train_timesteps)

    def first(self, scheduler: Any, level: Level) -> Nodes:
        """Return the node of a level; the network is given T sigma."""
        sigma = np.array([level.flow_sigma])
        return Nodes(sigma, _timesteps(scheduler, sigma))

    def respaced(self, scheduler: Any, plain: Nodes, first: Nodes, arguments: dict[str, Any]) -> Nodes:
        """Space the nodes evenly in the same time as the plain grid, from the start to where that grid ends."""
        keep = bool(spacing(scheduler) or scheduler.config.get("shift_terminal"))
        end = plain.sigmas[-1] if keep else scheduler.sigmas[-1].item()
        coordinate = _coordinate(scheduler, arguments.get("mu"))
        sigmas = spaced_from(plain.sigmas, first.sigmas.item(), coordinate, end)
        return Nodes.join(first, Nodes(sigmas, _timesteps(scheduler, sigmas))[1:])

    def few_steps(self, scheduler: Any, steps: int, limits: Limits) -> bool:
        """Return whether it is a distilled model's, or has at most 8 steps, as distilled flow models have."""
        any_step = "FlowMap" in type(scheduler).__name__  # AnyFlow's network is trained for steps between any levels
        return super().few_steps(scheduler, steps, limits) or (few_steps(steps) and not any_step)

    def move(self, scheduler: Any, level: Level, mode: Mode, limits: Limits, arguments: dict[str, Any]) -> None:
        """Move the schedule as every adapter does, if its timesteps are those of the sigmas; ValueError otherwise."""
        plain = self.nodes(scheduler)
        expected = plain.sigmas * scheduler.config.num_train_timesteps
        if not np.allclose(plain.timesteps, expected, atol=1.0, rtol=1e-5, equal_nan=True):
            raise ValueError(
                "this call gives its scheduler timesteps that are not num_train_timesteps * sigma (they are not"
                " shifted, the sigmas are), so no start holds for both: give sigmas, or a scheduler with shift=1."
            )
        super().move(scheduler, level, mode, limits, arguments)
        if len(scheduler.timesteps) > 1 and scheduler.timesteps[0] == scheduler.timesteps[1]:
            scheduler.set_begin_index(0)  # or it would look the first timestep up and find the second


def _coordinate(scheduler: Any, mu: float | None) -> Coordinate:
    """Return the time, a function of sigma, in which this scheduler's grid is even."""
    if _karras_flow(scheduler):
        return _KarrasRatio()
    if spaced := spacing(scheduler):
        return spaced
    config = scheduler.config
    if config.get("use_dynamic_shifting") and mu is not None:
        return Flow(math.exp(mu) if config.get("time_shift_type", "exponential") == "exponential" else mu)
    return Flow(getattr(scheduler, "shift", config.get("shift", config.get("flow_shift", 1.0))))


class _KarrasRatio(Karras):
    """Even in Karras time of sigma / alpha, for flow sigmas."""

    def time(self, sigmas: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Return the Karras time of sigma / alpha."""
        return super().time(sigmas / (1 - sigmas))

    def sigma(self, times: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Return the flow sigma of a Karras time."""
        ratio = super().sigma(times)
        return ratio / (1 + ratio)


def _karras_flow(scheduler: Any) -> bool:
    """UniPC alone turns the EDM sigmas of its Karras grid into flow sigmas (Cosmos 2.5)."""
    config = scheduler.config
    return bool(config.get("use_flow_sigmas") and config.use_karras_sigmas and "predict_x0" in config)


def _timesteps(scheduler: Any, sigmas: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    timesteps: Float64[np.ndarray, " n"] = sigmas * scheduler.config.num_train_timesteps
    return timesteps if scheduler.timesteps.is_floating_point() else np.floor(timesteps + 1e-3)
