"""Add noise to the conditioning image while sampling: conditioning augmentation (arXiv 2106.15282) at inference."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch

from unleak.attach.seams import Seam
from unleak.attach.strategies.evaluations import Evaluation, condition_of, evaluations
from unleak.attach.strategies.interval import Interval, acts, checked_interval
from unleak.core.numbers import within
from unleak.core.process import NoiseProcess

__all__ = ["ConditionNoise"]

_Argument = Literal["strength", "image_cond_noise_scale"]


@dataclass(frozen=True)
class ConditionNoise:
    """The conditional branch sees y + beta eps in place of the image's latents y, the form of TimeNoise.

    beta: strength of the noise, in the units of those latents as the denoiser sees them (SVD: unscaled).
    interval: share of the steps (first, last) in which it acts, 0 the first step and 1 the last; one number s: (0, s).
    seed: seed of the noise. It is drawn once for the whole call, apart from the call's own generator, so the initial
        noise stays the same.

    Only the first frame gets noise, never masks or the padding after it. (SVD and PIA show the image in every frame;
    there every frame gets the same noise.) The unconditional branch sees the image as it is.

    Models that hold the image as the first frame of the video take noise there by their own argument, where they have
    one: `strength` s = 1 / (1 + beta) (LTX and LTX-2 with conditions) shows s (y + beta eps) and tells the model so, in
    every step and branch, with noise from the call's own generator.

    argument: the pipeline's own argument that adds the noise; None: `strength` where the pipeline has it.
        `image_cond_noise_scale` (LTXConditionPipeline) shows y + (own + beta) t^2 eps, t the timestep from 1 to 0 and
        own the scale that the call gives (0.15 by default), with new noise in every step; the model is not told.
    """

    beta: float | int
    interval: Interval | float | int = (0.0, 1.0)
    seed: int = 0
    argument: _Argument | None = None

    def __post_init__(self) -> None:
        if not within(self.beta, 0):
            raise ValueError(f"ConditionNoise needs beta >= 0, not {self.beta!r}.")
        if self.argument not in (None, *get_args(_Argument)):
            known = " or ".join(get_args(_Argument))
            raise ValueError(f"ConditionNoise knows no argument {self.argument!r}: give {known}, or none.")
        object.__setattr__(self, "interval", checked_interval("ConditionNoise", self.interval))

    def fits(self, pipeline: type, seam: Seam, process: NoiseProcess | None = None) -> None:
        """Raise ValueError if the structure of this class of pipelines does not allow it."""
        del process  # at any level
        if self.argument and self.argument not in seam.noise_arguments:
            raise ValueError(
                f"{pipeline.__name__} has no {self.argument} by which ConditionNoise could add noise: leave it out."
            )
        if not seam.noise_arguments:
            condition_of(pipeline, seam, "ConditionNoise")
        elif self.interval != (0.0, 1.0):
            raise ValueError(
                f"ConditionNoise acts in every step of {pipeline.__name__}, by its"
                f" {self.argument or 'strength'}: leave the interval away."
            )

    def check(self, pipe: Any, seam: Seam) -> None:
        """Raise ValueError if this pipeline's structure does not allow it."""
        self.fits(type(pipe), seam)

    @contextmanager
    def attached(self, pipe: Any, seam: Seam, arguments: dict[str, Any]) -> Iterator[None]:
        """Act in the body."""
        if seam.noise_arguments:
            if self.beta and self.argument == "image_cond_noise_scale":
                _add_noise(arguments, self.beta)
            elif self.beta:
                _weaken(arguments, 1 / (1 + self.beta))
            yield
            return
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


def _conditions(arguments: dict[str, Any]) -> list[Any]:
    """Return the conditions of a call; none where it takes an image instead."""
    given = arguments.get("conditions")
    return [] if given is None else list(given) if isinstance(given, list | tuple) else [given]


def _weakened(arguments: dict[str, Any]) -> bool:
    """Return whether a call gives its image, or one of its conditions, a strength of its own."""
    strengths = [one.strength for one in _conditions(arguments)] or [arguments.get("strength", 1.0)]
    return any(own not in (1.0, [1.0]) for own in strengths)


def _add_noise(arguments: dict[str, Any], beta: float) -> None:
    """Raise a call's `image_cond_noise_scale` by beta."""
    if _weakened(arguments):
        raise ValueError(
            "image_cond_noise_scale acts on photos with strength 1 only, and this call gives a lower strength: leave"
            " one of them out."
        )
    arguments["image_cond_noise_scale"] += beta


def _weaken(arguments: dict[str, Any], strength: float) -> None:
    """Set the strength of a call's image, or of each of its conditions."""
    if _weakened(arguments):
        raise ValueError("this call gives a strength of its own, and ConditionNoise sets it: leave one of them away.")
    if not (conditions := _conditions(arguments)):
        arguments["strength"] = strength
        return
    changed = [replace(one, strength=strength) for one in conditions]
    arguments["conditions"] = changed if isinstance(arguments["conditions"], list | tuple) else changed[0]
