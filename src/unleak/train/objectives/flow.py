"""Training of rectified flows, Wan and LTX-Video: x_t = (1 - sigma) x_0 + sigma eps, the network predicts eps - x_0."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unleak.data.pixels import to_unit
from unleak.families.view import Levels
from unleak.train.config import FlowConfig, Recipe, RecipeError
from unleak.train.objectives.objective import (
    Objective,
    Prepared,
    noised_parts,
    of_first_frame_only,
    of_svd_only,
    timenoise,
)

__all__ = ["FlowObjective", "FlowSigma"]


@dataclass(frozen=True)
class FlowSigma:
    """The law of sigma: logit(q) ~ N(mean, std^2) or q uniform, sigma = shift q / (1 + (shift - 1) q), restricted to
    `low` <= sigma <= `high`."""

    config: FlowConfig
    shift: float
    low: float = 0.0
    high: float = 1.0

    def sample(self, generator: torch.Generator) -> Float[Tensor, "1"]:
        """Draw one sigma by inverting the distribution function: one uniform number is drawn."""
        # A float32 uniform can be 0, where the logit is not finite.
        u = torch.rand(1, generator=generator, dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
        begin, end = (self._cdf(torch.tensor([edge], dtype=torch.float64)) for edge in (self.low, self.high))
        p = begin + u * (end - begin)
        q = (
            p
            if self.config.law == "uniform"
            else torch.sigmoid(self.config.mean + self.config.std * torch.special.ndtri(p))
        )
        return (self.shift * q / (1 + (self.shift - 1) * q)).clamp(self.low, self.high).float()

    def quantile(self, sigma: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """Return P(a draw <= sigma)."""
        begin, end = (self._cdf(sigma.new_tensor([edge])) for edge in (self.low, self.high))
        return ((self._cdf(sigma) - begin) / (end - begin)).clamp(0, 1)

    def _cdf(self, sigma: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        q = (sigma / (self.shift + (1 - self.shift) * sigma)).clamp(0, 1)  # rounding goes beyond 1
        if self.config.law == "uniform":
            return q
        return torch.special.ndtr((torch.logit(q) - self.config.mean) / self.config.std)


class FlowObjective(Objective):
    """|F((1 - sigma) x_0 + sigma eps, sigma, condition) - (eps - x_0)|^2.

    TimeNoise noises all latents of the condition, those of the grey frames too: a causal VAE carries the image into
    them. t is sigma. `condition.dropout` is the share of clips without text. Where the image is the video's own first
    frame (LTX-Video, Wan 2.2 5B) that frame has no loss. TimeNoise noises it in the network's input, which is told that
    it is clean: experimental, nobody has tried it. `condition.first_frame_sigma` noises it and tells the network.
    """

    def __init__(self, recipe: Recipe, view: Any):
        super().__init__(recipe, view)
        if found := _of_first_frame(recipe, clean=view.first_frame_is_clean):
            raise RecipeError("\n".join(found))

    @classmethod
    def faults(cls, recipe: Recipe, view: Any) -> list[str]:
        """Refuse SVD's settings, an image from the middle, and what a clean first frame does not allow."""
        found = [*super().faults(recipe, view), *of_svd_only(recipe)]
        if getattr(recipe.data, "condition_frame", "first") != "first":
            found.append("data.condition_frame: random: this network's video begins with its image; give first")
        if view.first_frame_is_clean is True:  # of Wan the model's own configuration says it
            found += _of_first_frame(recipe, clean=True)
        return found

    def law(self, x_0: Float[Tensor, "b c f h w"]) -> FlowSigma:
        """Return the law of sigma for latents of this size."""
        config, view = self.recipe.flow, self.view
        return FlowSigma(config, config.shift or view.shift(*x_0.shape[2:]), *view.sigmas)

    def encoded(self, video: Float[Tensor, "b f 3 H W"]) -> dict[str, Float[Tensor, "b ..."]]:
        """Encode the video, and its first frame alone."""
        still = self.view.encode_still(video[:, 0], video.shape[1])
        return {"latents": self.view.encode_video(video), "still": still}

    def prepare(self, batch: dict[str, Any], texts: Tensor | None, generators: list[torch.Generator]) -> Prepared:
        """Encode latents, text and image, and draw sigma, eps, dropout and TimeNoise for each clip."""
        assert texts is not None
        x_0, photo = self.latents(batch, generators)
        law = self.law(x_0)
        sigma = torch.cat([law.sample(g) for g in generators])
        eps = torch.stack([torch.randn(x_0.shape[1:], generator=g) for g in generators]).to(x_0)
        dropout = torch.tensor([self.recipe.condition.dropout])
        lost = torch.cat([torch.rand(1, generator=g) < dropout for g in generators]).to(x_0.device)
        still, level = batch["still"].to(x_0), None
        if noised_parts(self.recipe.condition, self.view):
            noise = timenoise(self.recipe.condition)  # type: ignore[arg-type]
            still = torch.cat([noise(still[i : i + 1], sigma[i : i + 1], g)[0] for i, g in enumerate(generators)])
        if most := getattr(self.recipe.condition, "first_frame_sigma", 0.0):
            level = torch.cat([torch.rand(1, generator=g) for g in generators]) * sigma.clamp(max=most)
            still = _noised(still, level, generators)
        empty, text = texts[0], texts[1:]
        told = torch.where(lost[:, None, None], empty, text).to(x_0)
        condition = self.view.condition(still, told, to_unit(photo), fps=batch["fps"], level=level)
        quantile, sigma = law.quantile(sigma).to(x_0.device), sigma.to(x_0.device)
        return Prepared(x_0, eps, Levels(1 - sigma, sigma), quantile, condition)


def _noised(
    still: Float[Tensor, "b c f h w"], level: Float[Tensor, "b"], generators: list[torch.Generator]
) -> Float[Tensor, "b c f h w"]:
    """Noise the stills to the levels of the flow."""
    eps = torch.stack([torch.randn(still.shape[1:], generator=g) for g in generators]).to(still)
    share = level.to(still)[:, None, None, None, None]
    return (1 - share) * still + share * eps


def _of_first_frame(recipe: Recipe, *, clean: bool) -> list[str]:
    """Say what contradicts the place of the image; `clean`: it is the video's own first frame."""
    if not clean:
        return of_first_frame_only(recipe)
    frames = [bucket[2] for bucket in getattr(recipe.data, "buckets", ())] or [recipe.data.num_frames]
    alone = "the image is this network's first frame, and nothing is left to learn; give more"
    return [f"data.num_frames: {min(frames)}: {alone}"] if min(frames) < 2 else []
