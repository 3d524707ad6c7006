"""Where the steps of a schedule are."""

from typing import Any

from unleak.core.process import RF, VE, VP, Level, NoiseProcess

__all__ = ["level_of_step"]


def level_of_step(scheduler: Any, process: NoiseProcess, step: int = 0) -> Level:
    """The level at which step `step` of a schedule that is set begins."""
    match process:
        case VP():
            return process.level_at_timestep(float(scheduler.timesteps[step * scheduler.order]) + 1)
        case VE():
            return Level(1.0, float(scheduler.sigmas[step * scheduler.order]))
        case RF():
            sigma = float(scheduler.sigmas[step * scheduler.order])
            return Level(1 - sigma, sigma)
    raise AssertionError(process)
