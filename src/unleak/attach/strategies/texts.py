"""Strategies as people write them, in options and in the cases of a comparison."""

from math import isfinite

from unleak.attach.strategies.condition_noise import ConditionNoise
from unleak.attach.strategies.guidance_interval import GuidanceInterval
from unleak.attach.strategies.low_pass import LowPass

__all__ = ["BuiltIn", "parse_strategies"]

BuiltIn = LowPass | ConditionNoise | GuidanceInterval

_SHARE = 0.1  # of the steps in which a low-pass filter acts where nobody says; the authors' values are 0.04 to 0.2


def parse_strategies(
    *, low_pass: str | None = None, condition_noise: str | None = None, guidance_interval: str | None = None
) -> tuple[BuiltIn, ...]:
    """The strategies that are given, ready for `unleak.apply`; ValueError says which text is not understood.

    low_pass: FACTOR or FACTOR:SHARE, the size that the image's latents shrink to and the share of the steps, from the
        first on, in which they do (0.1); or `published`, the authors' values for the pipeline.
    condition_noise: beta, of `ConditionNoise`. guidance_interval: LOW..HIGH, levels as for a start; one may be missing.
    """
    found: list[BuiltIn] = []
    if low_pass is not None:
        found.append(_low_pass(low_pass))
    if condition_noise is not None:
        beta = _number(condition_noise)
        if not 0 < beta < 1000:
            raise ValueError(f"condition-noise {condition_noise}: give a number above 0 and below 1000, such as 0.1")
        found.append(ConditionNoise(beta))
    if guidance_interval is not None:
        low, dots, high = guidance_interval.partition("..")
        if not dots or not (low or high):
            raise ValueError(f"guidance-interval {guidance_interval}: give LOW..HIGH, such as sigma=1..sigma=100")
        try:
            found.append(GuidanceInterval(high=high or None, low=low or None))
        except ValueError as error:
            raise ValueError(f"guidance-interval {guidance_interval}: {error}") from None
    return tuple(found)


def _low_pass(text: str) -> LowPass:
    if text == "published":
        return LowPass()
    size, _, part = text.partition(":")
    factor, share = _number(size), _number(part) if ":" in text else _SHARE
    if not (0 < factor < 1 and 0 < share <= 1):
        raise ValueError(
            f"low-pass {text}: give a size above 0 and below 1, with or without the share of the steps, such as 0.25 or"
            " 0.25:0.1; or published"
        )
    return LowPass(factor, interval=(0.0, share))


def _number(text: str) -> float:
    """NaN for what is none."""
    try:
        value = float(text)
    except ValueError:
        return float("nan")
    return value if isfinite(value) else float("nan")
