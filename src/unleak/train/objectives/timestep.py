"""Training on the timesteps of a schedule, as DynamiCrafter and VideoCrafter1 are: t uniform, plain squared error."""

from dataclasses import dataclass
from typing import Any

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor

from unleak.data.pixels import to_unit
from unleak.families.lvdm.denoiser import LVDMCondition, dropped
from unleak.train.config import Recipe
from unleak.train.loss import prediction_loss
from unleak.train.objectives.objective import Objective, no_flow, noised_parts, of_svd_only, timenoise

__all__ = ["TimestepObjective"]


@dataclass(frozen=True)
class _Prepared:
    x_0: Float[Tensor, "b c f h w"]
    eps: Float[Tensor, "b c f h w"]
    t: Int[Tensor, "b"]
    text: Float[Tensor, "b l d"]
    features: Float[Tensor, "b ..."]
    latents: Float[Tensor, "b c f h w"] | None
    fps: Float[Tensor, "b"]
    generators: list[torch.Generator]


class TimestepObjective(Objective):
    """|F(x_t, t, condition) - target|^2, the target eps or v as the family has it.

    `condition.dropout` is each of three shares: of clips without text, without image tokens, and without either.
    Concatenated latents are never dropped. As published, but drawn for each clip rather than for a batch.
    """

    @classmethod
    def faults(cls, recipe: Recipe, view: type) -> list[str]:
        """What is of SVD or of flows; shares that leave nothing."""
        found = [*super().faults(recipe, view), *of_svd_only(recipe), *no_flow(recipe)]
        if recipe.condition.dropout > 1 / 3:
            found.append("condition.dropout: counts three times (text, image, both): give at most 0.33")
        return found

    def prepare(self, batch: dict[str, Any], texts: Tensor | None, generators: list[torch.Generator]) -> _Prepared:
        """Latents, text tokens and CLIP features, and the draws t, eps and dropout of each clip."""
        assert texts is not None
        denoiser, pipe = self.denoiser, self.denoiser.pipe
        x_0, photo = self.latents(batch, generators)
        T = pipe.scheduler.config.num_train_timesteps
        t = torch.cat([torch.randint(T, (1,), generator=g) for g in generators])
        eps = torch.stack([torch.randn(x_0.shape[1:], generator=g) for g in generators]).to(x_0)
        uniform = torch.cat([torch.rand(1, generator=g) for g in generators])
        no_text, no_image = (lost.to(x_0.device) for lost in dropped(uniform, self.recipe.condition.dropout))
        seen = torch.where(no_image[:, None, None, None], 0, to_unit(photo))
        latents = None
        if denoiser.concatenates:
            image = x_0[torch.arange(len(x_0)), :, batch["condition_frame"]]
            latents = repeat(image, "b c h w -> b c f h w", f=x_0.shape[2])
        empty, text = texts[0], texts[1:]
        text = torch.where(no_text[:, None, None], empty, text).to(x_0)
        fps = batch["fps"] if pipe.config.condition_on == "fps" else batch["stride"]
        return _Prepared(x_0, eps, t.to(x_0.device), text, pipe.encode_image(seen), latents, fps, generators)

    def losses(self, prepared: _Prepared) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"]]:
        """By t / T. The image projection may be trained, so its tokens are noised here."""
        denoiser, x_0 = self.denoiser, prepared.x_0
        tokens = denoiser.pipe.project_image(prepared.features, x_0.shape[2]).to(x_0)
        condition = LVDMCondition(prepared.text, tokens, prepared.latents, prepared.fps)
        time = denoiser.time(prepared.t)
        if parts := noised_parts(self.recipe.condition, denoiser):
            condition = self._noised(condition, time, parts, prepared.generators)
        return time, prediction_loss(denoiser, x_0, prepared.eps, prepared.t, condition)

    def _noised(
        self, condition: LVDMCondition, time: Tensor, parts: set[str], generators: list[torch.Generator]
    ) -> LVDMCondition:
        """Each clip with draws of its own: tokens first, then latents."""
        noise = timenoise(self.recipe.condition)  # type: ignore[arg-type]
        asked = dict.fromkeys(parts, noise)
        each = [_clip(condition, i).noised(time[i : i + 1], **asked, generator=g) for i, g in enumerate(generators)]
        image = torch.cat([one.image for one in each])
        latents = [one.latents for one in each if one.latents is not None]
        return LVDMCondition(condition.text, image, torch.cat(latents) if latents else None, condition.fps)


def _clip(condition: LVDMCondition, i: int) -> LVDMCondition:
    latents = None if condition.latents is None else condition.latents[i : i + 1]
    return LVDMCondition(condition.text[i : i + 1], condition.image[i : i + 1], latents)
