"""Larger differences between the photo and the blank frames after it (PainterI2V, github.com/princepainter)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unleak.attach.seams import Seam
from unleak.attach.strategies.evaluations import Evaluation, evaluations
from unleak.core.numbers import within
from unleak.core.process import NoiseProcess

__all__ = ["MotionAmplitude", "amplified"]

LIMIT = 6.0


@dataclass(frozen=True)
class MotionAmplitude:
    """Amplify how the latents of the blank frames differ from those of the photo, in every step and branch.

    For models that encode a video of the photo and blank frames as their condition (Wan and its kin). The schedule
    stays as it is, so it serves models distilled to few steps. 1 changes nothing; above some 1.2 colours drift.

    PainterI2V takes the mean of the difference over space and channels; here it is over space, for each channel, so
    that the result does not depend on how latents are normalised.
    """

    amount: float | int = 1.15

    def __post_init__(self) -> None:
        if not within(self.amount, 0, 10):
            raise ValueError(f"MotionAmplitude needs an amount between 0 and 10, such as 1.15, not {self.amount!r}.")

    def fits(self, pipeline: type, seam: Seam, process: NoiseProcess | None = None) -> None:
        """Raise ValueError if these pipelines show no encoded blank frames after the photo."""
        del process  # at any level
        if seam.condition is None or not seam.condition.blank_frames:
            raise ValueError(
                f"MotionAmplitude cannot be attached to {pipeline.__name__}: it needs a condition of the photo followed"
                " by encoded blank frames, as Wan's. Compress works with any model, and so does a start."
            )

    def check(self, pipe: Any, seam: Seam) -> None:
        """Raise ValueError if this pipeline shows no encoded blank frames after the photo."""
        self.fits(type(pipe), seam)
        if pipe.config.get("expand_timesteps"):
            raise ValueError(
                f"MotionAmplitude cannot be attached to this {type(pipe).__name__}: its photo is the first frame of the"
                " video itself (Wan 2.2 5B), so no blank frames follow it. ReferenceBias works there, or a start."
            )

    @contextmanager
    def attached(self, pipe: Any, seam: Seam, arguments: dict[str, Any]) -> Iterator[None]:
        """Act in the body."""
        if arguments.get("last_image") is not None and self.amount != 1:
            raise ValueError("MotionAmplitude would change the last image too: leave last_image away, or the strategy.")
        condition = seam.condition
        assert condition is not None

        def answer(evaluation: Evaluation) -> Any:
            if self.amount == 1:
                return evaluation.run()
            return evaluation.run(amplified(evaluation.image(), self.amount, frames=condition.frames))

        with evaluations(pipe, seam, answer):
            yield


def amplified(
    latents: Float[Tensor, "b c f h w"] | Float[Tensor, "b f c h w"], amount: float | int, *, frames: int = 2
) -> Float[Tensor, "b c f h w"] | Float[Tensor, "b f c h w"]:
    """Return `latents` with p <- b + a (d - mean d) + mean d, d = p - b, for all frames p but the first, b.

    frames: the axis of frames. The mean is over space, the last two axes. The result is clamped to +-6.
    """
    first = latents.narrow(frames, 0, 1)
    difference = latents.narrow(frames, 1, latents.shape[frames] - 1) - first
    mean = difference.mean((-2, -1), keepdim=True)
    rest = (first + amount * (difference - mean) + mean).clamp(-LIMIT, LIMIT)
    return torch.cat([first, rest], frames)
