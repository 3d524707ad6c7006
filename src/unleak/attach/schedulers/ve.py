"""Schedulers with a range of sigmas of their own, sigma_min to sigma_max: EDM, SVD, Cosmos."""

from typing import Any

import numpy as np

from unleak.attach.plan import Mode
from unleak.attach.schedulers.adapter import Nodes, ScheduleAdapter
from unleak.attach.schedulers.vp import spacing
from unleak.core.process import VE, Level

__all__ = ["VarianceExploding"]


class VarianceExploding(ScheduleAdapter):
    """EDMEuler; EulerDiscrete and FlowMatchEuler where sigma_min, sigma_max and a spacing are configured.

    Pipelines read `config.sigma_max` as the factor of their noise, so it is the start in both modes.
    """

    def fits(self, scheduler: Any) -> bool:
        """Return whether it has a spacing that runs over the configured range."""
        config = scheduler.config
        own = config.get("sigma_min") and config.get("sigma_max")
        return bool(own and ("sigma_schedule" in config or spacing(scheduler)))

    def process(self, scheduler: Any) -> VE:
        """Return VE between sigma_min and sigma_max."""
        config = scheduler.config
        return VE(config.sigma_min, config.sigma_max, config.get("rho", 7.0))

    def presented(self, scheduler: Any, level: Level) -> dict[str, Any]:
        """Return the sigma of the start as sigma_max."""
        del scheduler
        return {"sigma_max": level.sigma}

    def first(self, scheduler: Any, level: Level) -> Nodes:
        """Return the node at `level`; its timestep depends on the class.

        It is 0.25 ln sigma, T sigma, or an index of the table of betas.
        """
        sigma, config = np.array([float(level.sigma)]), scheduler.config
        if "sigma_schedule" in config or config.get("timestep_type") == "continuous":
            return Nodes(sigma, 0.25 * np.log(sigma))
        if "timestep_type" not in config:
            return Nodes(sigma, sigma * config.num_train_timesteps)
        table = np.sqrt(1 / scheduler.alphas_cumprod.cpu().double().numpy() - 1)
        return Nodes(sigma, np.interp(np.log(sigma), np.log(table), np.arange(len(table))))

    def laid(self, scheduler: Any, level: Level, mode: Mode) -> dict[str, Any]:
        """Return this sigma_max for a rescaled grid, which is that of a scheduler with it."""
        return super().laid(scheduler, level, mode) if mode == "truncate" else self.presented(scheduler, level)

    def respaced(self, scheduler: Any, plain: Nodes, first: Nodes, arguments: dict[str, Any]) -> Nodes:
        """Return the grid as it was laid, but for a single step: exponential spacing puts that at sigma_min."""
        del scheduler, arguments
        return plain if np.isclose(plain.sigmas[0], first.sigmas[0]) else Nodes.join(first, plain[1:])
