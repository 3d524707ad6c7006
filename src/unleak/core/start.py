"""Where sampling starts: a level named in any unit (940, 0.94T, sigma=100, logsnr=-5.3), or a step of the schedule."""

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from unleak.core.numbers import is_number

if TYPE_CHECKING:  # the command line reads a start before it imports torch
    from unleak.core.process import Level, NoiseProcess

__all__ = ["Start", "describe"]

LevelUnit = Literal["timestep", "fraction", "sigma", "log_snr"]
Unit = LevelUnit | Literal["step"]
_EXAMPLES = "940 (timestep), 0.94T (fraction), sigma=100, logsnr=-5.3 or step:1 (leave the first step out)"
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?inf"


@dataclass(frozen=True)
class Start:
    """A starting level that has not met its model yet. Build it by unit, or `Start.parse` the command line's text.

    A start in the unit `step` leaves out the first steps of whatever schedule a call sets, so it is at a level that the
    schedule has. It has no level before that.
    """

    unit: Unit
    value: float

    def __post_init__(self) -> None:
        if not is_number(self.value) or math.isnan(self.value):
            raise ValueError(f"a start cannot be {self.value!r}: say for example {_EXAMPLES}.")
        if self.unit == "step" and not (self.value >= 0 and float(self.value).is_integer()):
            raise ValueError(f"a start step:{self.value:g} is no number of steps to leave out: say for example step:1.")

    @classmethod
    def timestep(cls, timestep: float | int) -> "Start":
        """Start at a timestep of the training schedule, counted from 1: VP `940` is the level of index 939."""
        return cls("timestep", float(timestep))

    @classmethod
    def fraction(cls, fraction: float | int) -> "Start":
        """Start at a fraction of the process, 1 = noisiest: VP round(f T), RF sigma after any shift, VE Karras time."""
        return cls("fraction", float(fraction))

    @classmethod
    def sigma(cls, sigma: float | int) -> "Start":
        """Start at a sigma: sigma / alpha for VP and VE (as in EDM, k-diffusion); the flow sigma in (0, 1] for RF."""
        return cls("sigma", float(sigma))

    @classmethod
    def log_snr(cls, log_snr: float | int) -> "Start":
        """Start at a log signal-to-noise ratio, 2 ln(alpha / sigma), which means the same for every model."""
        return cls("log_snr", float(log_snr))

    @classmethod
    def step(cls, steps: int) -> "Start":
        """The level at which the schedule's step `steps` begins, from 0: the first `steps` steps are left out."""
        return cls("step", float(steps))

    @property
    def steps_left_out(self) -> int:
        """How many first steps of the schedule are left out; 0 for a start that names a level."""
        return int(self.value) if self.unit == "step" else 0

    @classmethod
    def parse(cls, text: str | float | int) -> "Start":
        """Read `940`, `0.94T`, `sigma=100`, `logsnr=-5.3`, `timestep=939.5` or `step:1`; a bare `0.94` is ambiguous."""
        if not isinstance(text, str) and not is_number(text):
            raise ValueError(f"a start is a text or a number, not {text!r}: say for example {_EXAMPLES}.")
        word = str(text).strip().lower()
        if word == "auto":
            raise ValueError(
                "start auto is found for each photo, by previews: unleak.tune(pipe, image=photo).start is what to give"
                " here; on the command line `unleak tune` tells it, and `unleak generate --start auto` uses it."
            )
        if re.fullmatch(r"\d+", word):
            return cls.timestep(float(word))
        if match := re.fullmatch(rf"({_NUMBER})\s*t", word):
            if float(match[1]) == 0:
                raise ValueError(f"start {text!r}: there is no noise to remove at 0; give more, such as 0.94T")
            return cls.fraction(float(match[1]))
        if match := re.fullmatch(rf"(timestep|fraction|sigma|log[_-]?snr)\s*=\s*({_NUMBER})", word):
            unit = "log_snr" if match[1].startswith("log") else match[1]
            start: Start = getattr(cls, unit)(float(match[2]))
            return start
        if match := re.fullmatch(r"step\s*[:=]\s*(\d+)", word):
            return cls.step(int(match[1]))
        if re.fullmatch(_NUMBER, word):
            raise ValueError(f"start {text!s} is ambiguous: {text!s}T or sigma={text!s}?")
        raise ValueError(f"start {text!r} is not understood: say for example {_EXAMPLES}.")

    def resolve(self, process: "NoiseProcess") -> "Level":
        """Return the level of `process` that this start names; ValueError with the range if it lies outside.

        ValueError also for a step, whose level only the schedule of a call can tell.
        """
        if self.unit == "step":
            raise ValueError(f"start {self} is a place in a schedule, and has a level only where a schedule is set.")
        level: Level = getattr(process, f"level_at_{self.unit}")(self.value)
        return level

    def __str__(self) -> str:
        number = _shortest(self.value)
        match self.unit:
            case "fraction":
                return f"{number}.0T" if number.isdigit() else f"{number}T"
            case "step":
                return f"step:{number}"
            case "timestep" if number.isdigit():
                return number
            case unit:
                return f"{unit.replace('_', '')}={number}"


def describe(level: "Level", process: "NoiseProcess") -> dict[str, Any]:
    """Return a level in every unit, for people (`text`) and for JSON (numbers; None where the value is infinite).

    `edm_sigma` and `flow_sigma` are the sigmas of the same SNR in a VE and in an RF model.
    """
    units: dict[str, float] = {unit: getattr(process, f"{unit}_of")(level) for unit in get_args(LevelUnit)}
    equal_snr = {"edm_sigma": level.edm_sigma, "flow_sigma": level.flow_sigma}
    text = (
        f"timestep {units['timestep']:.6g} = {units['fraction']:.4g}T = sigma {units['sigma']:.6g}"
        f" = log-SNR {units['log_snr']:.4g} ({process.kind}; EDM sigma {level.edm_sigma:.6g}, flow sigma"
        f" {level.flow_sigma:.4g})"
    )
    numbers = {"alpha": level.alpha, "noise": level.sigma, **units, **equal_snr}
    finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
    return {"process": process.kind, **finite, "text": text}


def _shortest(value: float) -> str:
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
