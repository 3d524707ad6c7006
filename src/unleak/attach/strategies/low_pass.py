"""Low-pass filtered condition in the first steps (ALG, Choi et al., arXiv 2506.08456)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from unleak.attach.seams import Seam
from unleak.attach.strategies.evaluations import Evaluation, condition_of, evaluations, tensor_of
from unleak.attach.strategies.interval import Interval, acts, checked_interval
from unleak.core.numbers import is_number, within
from unleak.core.process import NoiseProcess

__all__ = ["LowPass", "down_up", "gaussian"]

_SHARE = 0.1  # of the steps in which a filter acts where nobody says; the authors' values are 0.04 to 0.2


@dataclass(frozen=True)
class LowPass:
    """In the first steps the guided direction sees the image without its fine detail, which freezes motion.

    With prediction v and condition images I and LP(I): v(I, nothing) + w (v(LP(I), prompt) - v(LP(I), nothing)), so the
    unconditional branch keeps the full image; without guidance v(LP(I)). A guided step in the interval costs one
    evaluation more for each of its evaluations but the conditional one.

    factor: the size, in (0, 1), to which `down_up` shrinks the image's latents before it enlarges them again. None,
        with `interval` None too: the values of the authors' configuration for this pipeline, where they have one
        (choi403/ALG on GitHub: CogVideoX, Wan 2.1, HunyuanVideo); other models of the same class get the same.
    interval: share of the steps (first, last) in which it acts, 0 the first step and 1 the last; one number s: (0, s).
        None with a factor or a Gaussian filter: (0, 0.1).
    filter: `down_up` (bilinear, with antialiasing) or `gaussian`, whose standard deviation is `sigma`, in latents.
    strength: from 0, no filter, to 1, the whole filter.
    """

    factor: float | int | None = None
    interval: Interval | float | int | None = None
    filter: str = "down_up"
    sigma: float | int | None = None
    strength: float | int = 1.0

    def __post_init__(self) -> None:
        if self.filter not in ("down_up", "gaussian"):
            raise ValueError(f"LowPass filter {self.filter!r} is unknown: choose down_up or gaussian.")
        if self.filter == "gaussian" and (not within(self.sigma, 0) or not self.sigma or self.factor is not None):
            raise ValueError("LowPass(filter='gaussian') needs sigma > 0, in latents, and no factor.")
        outside = self.factor is not None and not (is_number(self.factor) and 0 < self.factor < 1)
        if self.filter == "down_up" and (self.sigma is not None or outside):
            raise ValueError(f"LowPass(filter='down_up') needs a factor in (0, 1), not {self.factor!r}, and no sigma.")
        if not within(self.strength, 0, 1):
            raise ValueError(f"LowPass strength {self.strength!r} lies outside 0 (no filter) to 1.")
        interval = self.interval
        if interval is None and (self.factor is not None or self.filter == "gaussian"):
            interval = _SHARE
        if interval is not None:
            object.__setattr__(self, "interval", checked_interval("LowPass", interval))

    def fits(self, pipeline: type, seam: Seam, process: NoiseProcess | None = None) -> None:
        """Raise ValueError if the structure of these pipelines does not allow it, or they have no published values."""
        del process  # at any level
        condition_of(pipeline, seam, "LowPass")
        self._for(pipeline, seam)

    def check(self, pipe: Any, seam: Seam) -> None:
        """Raise ValueError if this pipeline's structure does not allow it, or it has no published values."""
        self.fits(type(pipe), seam)

    @contextmanager
    def attached(self, pipe: Any, seam: Seam, arguments: dict[str, Any]) -> Iterator[None]:
        """Act in the body."""
        del arguments
        networks = [getattr(pipe, name, None) for name in ("transformer", "transformer_2")]
        if any(getattr(network, "is_cache_enabled", False) for network in networks):
            raise ValueError("LowPass evaluates the denoiser more often than its cache expects: disable_cache() first.")
        settings = self._for(type(pipe), seam)
        with evaluations(pipe, seam, settings.answer):
            yield

    def answer(self, evaluation: Evaluation) -> Any:
        """Return what the pipeline gets for one evaluation."""
        assert isinstance(self.interval, tuple)
        if not acts(self.interval, evaluation.progress) or not self.strength:
            return evaluation.run()
        low = self.filtered(evaluation.image())
        if evaluation.branch in ("conditional", "other"):
            return evaluation.run(low)
        full, filtered = evaluation.run(), tensor_of(evaluation.run(low))
        prediction = tensor_of(full)
        if evaluation.branch == "both":
            half = len(prediction) // 2
            prediction[half:] = prediction[:half] + filtered[half:] - filtered[:half]
        else:  # the pipeline holds the conditional prediction already, and combines it with this one
            tensor_of(evaluation.earlier).add_(prediction - filtered)
        return full

    def filtered(self, latents: Tensor) -> Tensor:
        """Return every frame of the image's latents without fine detail; the last two axes are those of space."""
        flat = latents.reshape(-1, 1, *latents.shape[-2:]).float()  # a CPU has no antialiased filter in half precision
        if self.filter == "down_up":
            assert self.factor is not None
            flat = down_up(flat, 1 - (1 - self.factor) * self.strength)
        else:
            assert self.sigma is not None
            flat = gaussian(flat, self.sigma * self.strength)
        return flat.reshape(latents.shape).to(latents.dtype)

    def _for(self, pipeline: type, seam: Seam) -> "LowPass":
        """Return this filter, with the authors' values where it has none of its own."""
        if self.factor is not None or self.filter == "gaussian":
            return self
        if self.interval is not None:
            raise ValueError("LowPass needs a factor with its interval, for example unleak.LowPass(0.4, (0.0, 0.2)).")
        if seam.low_pass is None:
            raise ValueError(
                f"LowPass has no published values for {pipeline.__name__}: give a factor, and if you like the share of"
                " the steps, for example unleak.LowPass(0.4, 0.2), the authors' values for Wan 2.1."
            )
        return replace(self, factor=seam.low_pass[0], interval=(0.0, seam.low_pass[1]))


def down_up(images: Float[Tensor, "n c h w"], factor: float | int) -> Float[Tensor, "n c h w"]:
    """Shrink images to `factor` of their size and enlarge them again, bilinearly."""
    size = images.shape[-2:]
    small = [max(1, round(length * factor)) for length in size]
    for shape in (small, list(size)):
        images = F.interpolate(images, shape, mode="bilinear", antialias=True)
    return images


def gaussian(images: Float[Tensor, "n c h w"], sigma: float | int) -> Float[Tensor, "n c h w"]:
    """Blur by a Gaussian of standard deviation `sigma` elements, cut off at 3 sigma; edges are repeated."""
    radius = max(1, round(3 * sigma))
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=images.device) / sigma).square())
    weights = (weights / weights.sum()).to(images.dtype).expand(images.shape[1], 1, 1, -1)
    images = F.pad(images, [radius] * 4, mode="replicate")
    images = F.conv2d(images, weights, groups=images.shape[1])
    return F.conv2d(images, weights.transpose(2, 3), groups=images.shape[1])
