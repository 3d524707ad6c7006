"""Add noise to the conditioning image while sampling: conditioning augmentation (arXiv 2106.15282) at inference."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from unleak.attach.seams import Seam
from unleak.attach.strategies.evaluations import Evaluation, condition_of, evaluations
from unleak.attach.strategies.interval import Interval, acts, checked_interval
from unleak.core.process import NoiseProcess

__all__ = ["ConditionNoise"]


@dataclass(frozen=True)
class ConditionNoise:
    """The conditional branch sees y + beta eps in place of the image's latents y, the form of TimeNoise.

    beta: strength of the noise, in the units of those latents as the denoiser sees them (SVD: unscaled).
    interval: share of the steps (first, last) in which it acts, 0 the first step and 1 the last; one number s: (0, s).
    seed: seed of the noise. It is drawn once for the whole call, apart from the call's own generator, so the initial
        noise stays the same.

    Only the first frame gets noise, never masks or the padding after it. (SVD and PIA show the image in every frame;
    there every frame gets the same noise.) The unconditional branch sees the image as it is.
    """

    beta: float | int
    interval: Interval | float | int = (0.0, 1.0)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.beta >= 0:
            raise ValueError(f"ConditionNoise needs beta >= 0, not {self.beta}.")
        object.__setattr__(self, "interval", checked_interval("ConditionNoise", self.interval))

    def fits(self, pipeline: type, seam: Seam, process: NoiseProcess | None = None) -> None:
        """Raise ValueError if the structure of this class of pipelines does not allow it."""
        del process  # at any level
        condition_of(pipeline, seam, "ConditionNoise")

    def check(self, pipe: Any, seam: Seam) -> None:
        """Raise ValueError if this pipeline's structure does not allow it."""
        self.fits(type(pipe), seam)

    @contextmanager
    def attached(self, pipe: Any, seam: Seam, arguments: Mapping[str, Any]) -> Iterator[None]:
        """Active in the body."""
        del arguments
        condition = condition_of(type(pipe), seam, "ConditionNoise")

        def answer(evaluation: Evaluation) -> Any:
            assert isinstance(self.interval, tuple)
            active = acts(self.interval, evaluation.progress) and self.beta
            if not active or evaluation.branch == "unconditional":
                return evaluation.run()
            noisy = evaluation.image().clone()
            conditional = noisy[len(noisy) // 2 :] if evaluation.branch == "both" else noisy
            frames = conditional if condition.every_frame else conditional.narrow(condition.frames, 0, 1)
            shape = list(frames.shape)
            shape[condition.frames] = 1
            generator = torch.Generator().manual_seed(self.seed)
            frames += self.beta * torch.randn(shape, generator=generator).to(frames)
            return evaluation.run(noisy)

        with evaluations(pipe, seam, answer):
            yield
