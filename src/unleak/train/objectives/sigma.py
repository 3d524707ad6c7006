"""EDM training of Stable Video Diffusion: ln sigma normal, the loss weighted by sigma, the image noised or not."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unleak.data.pixels import to_unit
from unleak.families.svd.denoiser import SVDCondition
from unleak.train.config import Recipe
from unleak.train.draws import Draws, build_condition, draw, sigma_distribution
from unleak.train.loss import edm_loss
from unleak.train.objectives.objective import Objective, no_flow

__all__ = ["SigmaObjective"]


@dataclass(frozen=True)
class _Prepared:
    x_0: Float[Tensor, "b c f h w"]
    draws: Draws
    condition: SVDCondition


class SigmaObjective(Objective):
    """lambda(sigma) |D(x_0 + sigma eps; sigma, condition) - x_0|^2."""

    texts_needed = False

    @classmethod
    def faults(cls, recipe: Recipe, view: type) -> list[str]:
        """Of the condition: frames all have one image latent, so the clip's first frame is the image."""
        return [*super().faults(recipe, view), *no_flow(recipe)]

    def prepare(self, batch: dict[str, Any], texts: Tensor | None, generators: list[torch.Generator]) -> _Prepared:
        """Latents, CLIP embedding, and all draws."""
        del texts
        recipe, denoiser = self.recipe, self.denoiser
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
            raw = x_0[torch.arange(len(x_0)), :, batch["condition_frame"]] / denoiser.scaling_factor
        else:
            raw = denoiser.encode_raw(image + draws.pixel_noise)
        told = {"fps": batch["fps"], "motion_bucket_id": batch["motion_bucket_id"]}
        return _Prepared(x_0, draws, build_condition(raw, denoiser.embed_image(image), **told, draws=draws))

    def losses(self, prepared: _Prepared) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"]]:
        """By the quantile of sigma."""
        sigma = prepared.draws.sigma

        def predict(x_t: Tensor, sigma: Tensor) -> Tensor:
            clean: Tensor = self.denoiser.predict_clean(x_t, sigma, prepared.condition)
            return clean

        config = self.recipe.sigma
        loss = edm_loss(predict, prepared.x_0, prepared.draws.eps, sigma, sigma_data=config.sigma_data)
        return sigma_distribution(config).cdf(sigma), loss
