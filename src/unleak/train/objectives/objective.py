"""What every objective has: frozen networks first, draws keyed by the clip, then the loss of each clip.

An objective draws noise levels by the law of its kind of family and builds the condition; noise, prediction and target
are the view's.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unleak.core.timenoise import TimeNoise
from unleak.data.pixels import to_unit
from unleak.families.view import Levels, View
from unleak.train.config import FlowConfig, Recipe, SigmaConfig, TimeNoiseConfig
from unleak.train.draws import generator
from unleak.train.loss import squared_error

__all__ = ["Objective", "Prepared", "timenoise"]


@dataclass(frozen=True)
class Prepared:
    """A batch of which everything is drawn and every frozen network has been run."""

    x_0: Float[Tensor, "b c f h w"]
    eps: Float[Tensor, "b c f h w"]
    levels: Levels
    quantile: Float[Tensor, "b"]
    """Of the levels, under the law of training."""
    condition: Any


class Objective(ABC):
    """`batch` is a dictionary of the clips' tensors as the data gives them, on the device, `texts` their text tokens.

    `prepare` and `losses` together are one step: what no trained weight takes part in, and the rest.
    """

    texts_needed = True

    def __init__(self, recipe: Recipe, view: Any):
        self.recipe, self.view = recipe, view

    @classmethod
    def faults(cls, recipe: Recipe, view: type[View]) -> list[str]:
        """Say what of a recipe this kind of training does not know, one sentence each."""
        found = []
        if recipe.experts and not view.experts_known:
            found.append("experts: this model has a single network; leave it away")
        condition = recipe.condition
        if isinstance(condition, TimeNoiseConfig) and condition.on and not _parts(condition, view) <= set(view.noised):
            known = " or ".join(view.noised)
            found.append(f"condition.on: {condition.on}: the condition of this model is {known}")
        if recipe.trainable in ("temporal", "spatial") and not view.temporal:
            found.append(
                f"trainable: {recipe.trainable}: no layer of this network works along time alone; use lora, or patterns"
            )
        if recipe.latents == "sample" and not view.samples_posterior:
            found.append("latents: sample: this model was trained on the mode of its VAE's posterior; leave it away")
        return found

    def encoded(self, video: Float[Tensor, "b f 3 H W"]) -> dict[str, Float[Tensor, "b ..."]]:
        """What frozen networks make of clips whatever is drawn, so that it can be kept; `latents` among it, and their
        standard deviation `spread` if a recipe wants samples."""
        if self.recipe.latents == "mode":
            return {"latents": self.view.encode_video(video)}
        mean, spread = self.view.encode_posterior(video)
        return {"latents": mean, "spread": spread}

    def latents(self, batch: dict[str, Any], generators: list[torch.Generator]) -> tuple[Tensor, Tensor]:
        """x_0, and the frame that is the image (uint8, b H W 3)."""
        if "latents" in batch:
            photo = batch["image"]
        else:
            video, frame = batch["video"], batch["condition_frame"]
            batch |= self.encoded(to_unit(video))
            photo = video[torch.arange(len(video)), frame]
        x_0 = batch["latents"]
        if "spread" in batch:
            # Generators of their own: every other draw is the same with and without.
            apart = [generator(g.initial_seed(), "posterior") for g in generators]
            x_0 = x_0 + batch["spread"] * torch.stack([torch.randn(x_0.shape[1:], generator=g) for g in apart]).to(x_0)
        return x_0, photo

    @abstractmethod
    def prepare(self, batch: dict[str, Any], texts: Tensor | None, generators: list[torch.Generator]) -> Prepared:
        """Encode the clips and make their draws, each from its own generator."""

    def losses(self, prepared: Prepared) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"]]:
        """Return of every clip how noisy it was, as a quantile of the law in [0, 1], and its loss."""
        condition, levels = self.condition(prepared), prepared.levels
        error = squared_error(self.view, prepared.x_0, prepared.eps, levels, condition)
        return prepared.quantile, self.weight(levels) * error

    def condition(self, prepared: Prepared) -> Any:
        """Return what the network is told, as far as trained weights take part in it."""
        return prepared.condition

    def weight(self, levels: Levels) -> Float[Tensor, "b"] | float:
        """Return the weight of each clip's squared error."""
        del levels
        return 1.0


def timenoise(config: TimeNoiseConfig) -> TimeNoise:
    """Return the TimeNoise that a recipe asks for."""
    return TimeNoise(config.beta_m, config.a, spread=config.spread, mu_max=config.mu_max)


def _parts(config: TimeNoiseConfig, view: Any) -> set[str]:
    if config.on is None:
        return {view.noised[0]}
    return {"latents", "tokens"} if config.on == "both" else {config.on}


def noised_parts(config: Any, view: Any) -> set[str]:
    """Return which parts of the condition a recipe noises: `latents`, `tokens`, both or none."""
    return _parts(config, view) if isinstance(config, TimeNoiseConfig) else set()


def of_svd_only(recipe: Recipe) -> list[str]:
    """Say which settings of a recipe only models like Stable Video Diffusion know."""
    found, condition = [], recipe.condition
    if condition.noise == "pixel":
        found.append("condition.noise: pixel is how Stable Video Diffusion is trained; give none or timenoise")
    elif condition.noise == "none" and condition.noise_aug_strength:
        found.append("condition.noise_aug_strength: this model is not told it; leave it away")
    elif isinstance(condition, TimeNoiseConfig):
        usual = TimeNoiseConfig.model_fields
        given = [name for name in ("told", "reference", "per_frame") if getattr(condition, name) != usual[name].default]
        found += [f"condition.{name}: of Stable Video Diffusion alone; leave it away" for name in given]
    if recipe.sigma != SigmaConfig():
        found.append("sigma: the law of models trained on a sigma such as Stable Video Diffusion; leave it away")
    if recipe.motion_readout:
        found.append("motion_readout: reads the middle of a UNet like Stable Video Diffusion's; leave it away")
    return found


def of_first_frame_only(recipe: Recipe) -> list[str]:
    """Say which settings are only for models whose image is the video's own first frame."""
    if not getattr(recipe.condition, "first_frame_sigma", 0.0):
        return []
    return ["condition.first_frame_sigma: of models whose image is the noisy video's first frame; leave it away"]


def no_flow(recipe: Recipe) -> list[str]:
    """Say which settings of a recipe only rectified flows know."""
    found = of_first_frame_only(recipe)
    if recipe.lora and recipe.frozen_dtype != "fp32" and recipe.mixed_precision == "no":
        found.append(f"frozen_dtype: {recipe.frozen_dtype} wants mixed_precision: bf16 or fp16; give one, or fp32")
    if recipe.flow != FlowConfig():
        found.append("flow: the law of a rectified flow's sigma, and this model is none; leave it away")
    return found
