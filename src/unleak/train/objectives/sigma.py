"""EDM training of Stable Video Diffusion: ln sigma normal, the loss weighted by sigma, the image noised or not."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unleak.data.pixels import to_unit
from unleak.families.view import Levels, View
from unleak.train.config import Recipe
from unleak.train.draws import build_condition, draw, sigma_distribution
from unleak.train.loss import edm_weight
from unleak.train.objectives.objective import Objective, Prepared, no_flow

__all__ = ["SigmaObjective"]


class SigmaObjective(Objective):
    """lambda(sigma) |D(x_0 + sigma eps; sigma, condition) - x_0|^2."""

    texts_needed = False

    @classmethod
    def faults(cls, recipe: Recipe, view: type[View]) -> list[str]:
        """Refuse the settings of flows."""
        return [*super().faults(recipe, view), *no_flow(recipe)]

    def prepare(self, batch: dict[str, Any], texts: Tensor | None, generators: list[torch.Generator]) -> Prepared:
        """Encode latents and the CLIP embedding, and make all draws."""
        del texts
        recipe, view = self.recipe, self.view
        x_0, photo = self.latents(batch, generators)
        image = to_unit(photo)
        draws = draw(
            recipe.condition,
            sigma_distribution(recipe.sigma),
            generators,
            latent_shape=x_0.shape[1:],
            image_shape=image.shape[1:],
        ).to(x_0.device)
        if draws.pixel_noise is None:
            # The VAE encodes every frame on its own, so the clean image's latent is that of its frame.
            raw = x_0[torch.arange(len(x_0)), :, batch["condition_frame"]] / view.scaling_factor
        else:
            raw = view.encode_raw(image + draws.pixel_noise)
        told = {"fps": batch["fps"], "motion_bucket_id": batch["motion_bucket_id"]}
        condition = build_condition(raw, view.embed_image(image), **told, draws=draws)
        quantile = sigma_distribution(recipe.sigma).cdf(draws.sigma)
        return Prepared(x_0, draws.eps, Levels(torch.ones_like(draws.sigma), draws.sigma), quantile, condition)

    def weight(self, levels: Levels) -> Float[Tensor, "b"]:
        """Return lambda(sigma)."""
        return edm_weight(levels.edm_sigma, self.recipe.sigma.sigma_data)
