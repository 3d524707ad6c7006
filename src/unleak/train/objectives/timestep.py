"""Training on the timesteps of a schedule, as DynamiCrafter and VideoCrafter1 are: t uniform, plain squared error."""

from dataclasses import dataclass
from typing import Any

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from unleak.data.pixels import to_unit
from unleak.families.lvdm.view import LVDMCondition, dropped
from unleak.families.view import View
from unleak.train.config import Recipe
from unleak.train.objectives.objective import Objective, Prepared, no_flow, noised_parts, of_svd_only, timenoise

__all__ = ["TimestepObjective"]


@dataclass(frozen=True)
class _Given:
    """What frozen networks make of the condition."""

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
    def faults(cls, recipe: Recipe, view: type[View]) -> list[str]:
        """Refuse the settings of SVD and of flows, and shares that leave nothing."""
        found = [*super().faults(recipe, view), *of_svd_only(recipe), *no_flow(recipe)]
        if recipe.condition.dropout > 1 / 3:
            found.append("condition.dropout: counts three times (text, image, both): give at most 0.33")
        return found

    def prepare(self, batch: dict[str, Any], texts: Tensor | None, generators: list[torch.Generator]) -> Prepared:
        """Encode latents, text and CLIP features, and draw t, eps and dropout for each clip."""
        assert texts is not None
        view, pipe = self.view, self.view.pipe
        x_0, photo = self.latents(batch, generators)
        T = pipe.scheduler.config.num_train_timesteps
        t = torch.cat([torch.randint(T, (1,), generator=g) for g in generators])
        eps = torch.stack([torch.randn(x_0.shape[1:], generator=g) for g in generators]).to(x_0)
        uniform = torch.cat([torch.rand(1, generator=g) for g in generators])
        no_text, no_image = (lost.to(x_0.device) for lost in dropped(uniform, self.recipe.condition.dropout))
        seen = torch.where(no_image[:, None, None, None], 0, to_unit(photo))
        latents = None
        if view.concatenates:
            image = x_0[torch.arange(len(x_0)), :, batch["condition_frame"]]
            latents = repeat(image, "b c h w -> b c f h w", f=x_0.shape[2])
        empty, text = texts[0], texts[1:]
        text = torch.where(no_text[:, None, None], empty, text).to(x_0)
        fps = batch["fps"] if pipe.config.condition_on == "fps" else batch["stride"]
        levels = view.levels_at(t.to(x_0.device))
        given = _Given(text, pipe.encode_image(seen), latents, fps, generators)
        return Prepared(x_0, eps, levels, view.time(levels), given)

    def condition(self, prepared: Prepared) -> LVDMCondition:
        """Project the image, which may be trained, and put TimeNoise on its tokens and on the latents."""
        given, x_0 = prepared.condition, prepared.x_0
        tokens = self.view.pipe.project_image(given.features, x_0.shape[2]).to(x_0)
        condition = LVDMCondition(given.text, tokens, given.latents, given.fps)
        if parts := noised_parts(self.recipe.condition, self.view):
            return self._noised(condition, prepared.quantile, parts, given.generators)
        return condition

    def _noised(
        self, condition: LVDMCondition, time: Tensor, parts: set[str], generators: list[torch.Generator]
    ) -> LVDMCondition:
        """Noise each clip with draws of its own: tokens first, then latents."""
        noise = timenoise(self.recipe.condition)  # type: ignore[arg-type]
        asked = dict.fromkeys(parts, noise)
        each = [_clip(condition, i).noised(time[i : i + 1], **asked, generator=g) for i, g in enumerate(generators)]
        image = torch.cat([one.image for one in each])
        latents = [one.latents for one in each if one.latents is not None]
        return LVDMCondition(condition.text, image, torch.cat(latents) if latents else None, condition.fps)


def _clip(condition: LVDMCondition, i: int) -> LVDMCondition:
    latents = None if condition.latents is None else condition.latents[i : i + 1]
    return LVDMCondition(condition.text[i : i + 1], condition.image[i : i + 1], latents)
