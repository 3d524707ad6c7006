"""Noise on the image condition while sampling: conditioning augmentation (Ho et al., arXiv 2106.15282) at inference."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from unleak.attach.seams import Seam
from unleak.attach.strategies.evaluations import Evaluation, condition_of, evaluations
from unleak.core.process import NoiseProcess

__all__ = ["ConditionNoise"]


@dataclass(frozen=True)
class ConditionNoise:
    """The conditional branch sees y + beta eps in place of the image's latents y, the form of TimeNoise.

    beta: in the units of those latents as the denoiser is given them (SVD: unscaled).
    interval: share of the steps (first, last) in which it acts, 0 the first step and 1 the last.
    seed: of the noise, one draw for the whole call, apart from the call's own generator: the initial noise stays.

    The first frame alone is noised, never masks nor the padding after it (SVD and PIA show the image in every frame,
    and there every frame gets the same noise). The unconditional branch keeps the image as it is.
    """

    beta: float | int
    interval: tuple[float | int, float | int] = (0.0, 1.0)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.beta >= 0:
            raise ValueError(f"ConditionNoise needs beta >= 0, not {self.beta}.")
        if not 0 <= self.interval[0] <= self.interval[1] <= 1:
            raise ValueError(
                f"ConditionNoise interval {self.interval} is not (first, last) share of the steps, in 0 to 1."
            )

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
            acts = self.interval[0] <= evaluation.progress <= self.interval[1]
            if not acts or not self.beta or evaluation.branch == "unconditional":
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
