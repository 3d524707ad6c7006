"""Noise processes as (alpha, sigma) of x_t = alpha x_0 + sigma eps: VP, VE and RF, in every unit in use."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

__all__ = ["RF", "VE", "VP", "Level", "NoiseProcess", "shift_sigma"]


@dataclass(frozen=True)
class Level:
    """How noisy x_t = alpha x_0 + sigma eps is: the coordinate that every part of the library shares."""

    alpha: float | int
    sigma: float | int

    @property
    def snr(self) -> float:
        """Return the signal-to-noise ratio (alpha / sigma)^2; inf without noise."""
        return (self.alpha / self.sigma) ** 2 if self.sigma else math.inf

    @property
    def log_snr(self) -> float:
        """Return ln of the signal-to-noise ratio, 2 ln(alpha / sigma); -inf for pure noise."""
        return 2 * (_log(self.alpha) - _log(self.sigma))

    @property
    def edm_sigma(self) -> float:
        """Return sigma / alpha, the sigma of EDM and k-diffusion; inf for pure noise."""
        return self.sigma / self.alpha if self.alpha else math.inf

    @property
    def flow_sigma(self) -> float:
        """Return the rectified-flow sigma of the same SNR, sigma / (alpha + sigma), in [0, 1]."""
        return self.sigma / (self.alpha + self.sigma)


class NoiseProcess(ABC):
    """A monotone path of levels from `cleanest` to `noisiest`.

    Four units name a level: `timestep`, `fraction`, `sigma` and `log_snr`. `level_at_<unit>(value)` returns the level,
    and `<unit>_of(level)` returns the value. A value outside the process raises ValueError, which names the range.
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def noisiest(self) -> Level:
        """Return the level where ordinary sampling starts."""

    @property
    @abstractmethod
    def cleanest(self) -> Level:
        """Return the least noisy level that training visits."""

    def level_at_timestep(self, timestep: float | int) -> Level:
        """Return the level of a training timestep; each process has a scale of its own."""
        return self._level("timestep", timestep)

    def level_at_fraction(self, fraction: float | int) -> Level:
        """Return the level at a fraction of the process; 1 is the noisiest, and each process says what it divides."""
        return self._level("fraction", fraction)

    def level_at_sigma(self, sigma: float | int) -> Level:
        """Return the level at a sigma: sigma / alpha for VP and VE, the flow sigma for RF."""
        return self._level("sigma", sigma)

    def level_at_log_snr(self, log_snr: float | int) -> Level:
        """Return the level at a log signal-to-noise ratio, 2 ln(alpha / sigma)."""
        return self._level("log_snr", log_snr)

    @abstractmethod
    def timestep_of(self, level: Level) -> float:
        """Return the timestep of a level; it is fractional between training timesteps."""

    @abstractmethod
    def fraction_of(self, level: Level) -> float:
        """Return the fraction of a level, in (0, 1]."""

    def sigma_of(self, level: Level) -> float:
        """Return the sigma of a level."""
        return level.edm_sigma

    def log_snr_of(self, level: Level) -> float:
        """Return the log signal-to-noise ratio of a level."""
        return level.log_snr

    def _level(self, unit: str, value: float | int) -> Level:
        ends = {getattr(self, f"{unit}_of")(end): end for end in (self.cleanest, self.noisiest)}
        for bound, end in ends.items():
            if math.isclose(value, bound, rel_tol=1e-6):  # a printed value comes back rounded
                return end
        low, high = sorted(ends)
        if not low < value < high:
            clean, noisy = ends
            raise ValueError(
                f"{unit} {value:g} lies outside this {self.kind} process: it runs from {unit} {clean:g} (least noisy)"
                f" to {noisy:g} (noisiest); choose a start between them{self._remark(unit)}."
            )
        level: Level = getattr(self, f"_at_{unit}")(value)
        return level

    def _remark(self, unit: str) -> str:
        """Return what an error message should explain about a unit; empty if it means what it means elsewhere."""
        del unit
        return ""

    @abstractmethod
    def _at_timestep(self, timestep: float | int, /) -> Level: ...

    @abstractmethod
    def _at_fraction(self, fraction: float | int, /) -> Level: ...

    @abstractmethod
    def _at_sigma(self, sigma: float | int, /) -> Level: ...

    @abstractmethod
    def _at_ratio(self, ratio: float | int, /) -> Level:
        """Return the level with sigma / alpha = ratio."""

    def _at_log_snr(self, log_snr: float | int, /) -> Level:
        return self._at_ratio(math.exp(min(-log_snr / 2, 700.0)))  # e^710 overflows a double


@dataclass(frozen=True, eq=False)
class VP(NoiseProcess):
    """Variance preserving: alpha^2 + sigma^2 = 1, alpha^2 = alphas_cumprod.

    timestep M in [1, T] is index M - 1 of `alphas_cumprod`, as in the reference; between indices alpha^2 is linear.
    fraction f is timestep round(f T). sigma is sigma / alpha, the EDM sigma (inf at zero terminal SNR).
    """

    alphas_cumprod: Float[Tensor, " T"]
    kind: ClassVar[str] = "VP"

    def __post_init__(self) -> None:
        object.__setattr__(self, "alphas_cumprod", self.alphas_cumprod.detach().cpu().double())
        levels = self.alphas_cumprod
        if len(levels) < 2 or not (levels[0] < 1 and levels[-1] >= 0 and bool((levels.diff() < 0).all())):
            raise ValueError("alphas_cumprod must fall strictly, from below 1 to at least 0: one value per timestep.")

    @classmethod
    def from_betas(cls, betas: Float[Tensor, " T"], *, zero_terminal_snr: bool = False) -> "VP":
        """Build the process of a schedule's betas.

        zero_terminal_snr: rescale them to zero terminal SNR (arXiv 2305.08891, Alg. 1).
        """
        alphas_cumprod = (1 - betas.detach().cpu().double()).cumprod(0)
        if zero_terminal_snr:
            alpha = alphas_cumprod.sqrt()
            alphas_cumprod = ((alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])).square()
        return cls(alphas_cumprod)

    @property
    def noisiest(self) -> Level:
        """Return the level of timestep T."""
        return self._at_timestep(len(self.alphas_cumprod))

    @property
    def cleanest(self) -> Level:
        """Return the level of timestep 1."""
        return self._at_timestep(1)

    def timestep_of(self, level: Level) -> float:
        """Return the timestep in [1, T], fractional between indices."""
        T = len(self.alphas_cumprod)
        return float(np.interp(-(level.alpha**2), -self.alphas_cumprod.numpy(), np.arange(1, T + 1)))

    def fraction_of(self, level: Level) -> float:
        """Return timestep / T."""
        return self.timestep_of(level) / len(self.alphas_cumprod)

    def _at_timestep(self, timestep: float | int, /) -> Level:
        T = len(self.alphas_cumprod)
        alpha_squared = float(np.interp(timestep, np.arange(1, T + 1), self.alphas_cumprod.numpy()))
        return Level(math.sqrt(alpha_squared), math.sqrt(1 - alpha_squared))

    def _at_fraction(self, fraction: float | int, /) -> Level:
        return self._at_timestep(round(fraction * len(self.alphas_cumprod)))

    def _at_ratio(self, ratio: float | int, /) -> Level:
        return Level(1 / math.hypot(1, ratio), 1 / math.hypot(1, 1 / ratio))

    _at_sigma = _at_ratio


@dataclass(frozen=True)
class VE(NoiseProcess):
    """Variance exploding (EDM): alpha = 1, sigma from sigma_min to sigma_max, e.g. 0.002 to 700 for SVD.

    timestep is what the network is given, 0.25 ln sigma (c_noise of arXiv 2206.00364, Table 1). fraction is the
    fraction of Karras time (Eq. 5 there): sigma = (sigma_min^(1/rho) + f (sigma_max^(1/rho) - sigma_min^(1/rho)))^rho.
    """

    sigma_min: float | int
    sigma_max: float | int
    rho: float | int = 7.0
    kind: ClassVar[str] = "VE"

    def __post_init__(self) -> None:
        if not (0 < self.sigma_min < self.sigma_max < math.inf and self.rho > 0):
            raise ValueError(
                f"VE needs 0 < sigma_min < sigma_max and rho > 0,"
                f" not sigma_min {self.sigma_min}, sigma_max {self.sigma_max}, rho {self.rho}."
            )

    @property
    def noisiest(self) -> Level:
        """Return the level of sigma_max."""
        return Level(1.0, float(self.sigma_max))

    @property
    def cleanest(self) -> Level:
        """Return the level of sigma_min."""
        return Level(1.0, float(self.sigma_min))

    def timestep_of(self, level: Level) -> float:
        """Return 0.25 ln sigma."""
        return 0.25 * _log(level.edm_sigma)

    def fraction_of(self, level: Level) -> float:
        """Return the fraction of Karras time."""
        low, high, here = (sigma ** (1 / self.rho) for sigma in (self.sigma_min, self.sigma_max, level.edm_sigma))
        return (here - low) / (high - low)

    def _remark(self, unit: str) -> str:
        if unit != "timestep":
            return ""
        sigmas = f"{self.sigma_min:g} to {self.sigma_max:g}"
        return f"; a timestep is 0.25 ln sigma here, so give a sigma ({sigmas}) or a fraction such as 0.94T"

    def _at_timestep(self, timestep: float | int, /) -> Level:
        return Level(1.0, math.exp(4 * timestep))

    def _at_fraction(self, fraction: float | int, /) -> Level:
        low, high = (sigma ** (1 / self.rho) for sigma in (self.sigma_min, self.sigma_max))
        return Level(1.0, (low + fraction * (high - low)) ** self.rho)

    def _at_ratio(self, ratio: float | int, /) -> Level:
        return Level(1.0, float(ratio))

    _at_sigma = _at_ratio


@dataclass(frozen=True)
class RF(NoiseProcess):
    """Rectified flow: alpha = 1 - sigma, sigma in (0, 1], always the sigma *after* any shift (`shift_sigma`).

    timestep is num_train_timesteps * sigma, from 1 on; fraction is sigma itself.
    """

    num_train_timesteps: int = 1000
    kind: ClassVar[str] = "RF"

    @property
    def noisiest(self) -> Level:
        """Return pure noise, sigma = 1."""
        return Level(0.0, 1.0)

    @property
    def cleanest(self) -> Level:
        """Return the level of timestep 1."""
        return self._at_timestep(1)

    def timestep_of(self, level: Level) -> float:
        """Return num_train_timesteps * sigma."""
        return self.num_train_timesteps * level.flow_sigma

    def fraction_of(self, level: Level) -> float:
        """Return the flow sigma."""
        return level.flow_sigma

    def sigma_of(self, level: Level) -> float:
        """Return the flow sigma."""
        return level.flow_sigma

    def _at_timestep(self, timestep: float | int, /) -> Level:
        return self._at_sigma(timestep / self.num_train_timesteps)

    def _at_sigma(self, sigma: float | int, /) -> Level:
        return Level(1 - float(sigma), float(sigma))

    _at_fraction = _at_sigma

    def _at_ratio(self, ratio: float | int, /) -> Level:
        return Level(1 / (1 + ratio), 1 / (1 + 1 / ratio))


def shift_sigma(sigma: float | int, shift: float | int) -> float:
    """Apply the timestep shift of flow schedules: sigma' = s sigma / (1 + (s - 1) sigma) (arXiv 2403.03206, Eq. 23)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def _log(value: float) -> float:
    return math.log(value) if value else -math.inf
