"""Other training-free fixes for still videos, attachable like a start: `unleak.apply(pipe, strategies=[...])`."""

from unleak.attach.strategies.condition_noise import ConditionNoise
from unleak.attach.strategies.guidance_interval import GuidanceInterval
from unleak.attach.strategies.low_pass import LowPass

__all__ = ["ConditionNoise", "GuidanceInterval", "LowPass"]
