"""Everything random about a training step, keyed by (seed, position of the clip in the run).

Each clip has its own CPU generator, so its draws do not depend on the number of processes, the device, accumulation, or
on where a run was stopped and resumed.
"""

import hashlib
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unleak.core.timenoise import TimeNoise, logit_normal, mu
from unleak.families.svd.view import SVDCondition
from unleak.train.config import ConditionConfig, PixelNoiseConfig, SigmaConfig, TimeNoiseConfig
from unleak.train.loss import SigmaDistribution

REFERENCE_SIGMA_MAX = 700.0  # the reference implementation's t is sigma / 700


def key(*parts: object) -> int:
    """Make a seed that depends on every part."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*parts: object) -> torch.Generator:
    """Make a new CPU generator keyed by `parts`."""
    return torch.Generator().manual_seed(key(*parts))


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, length: int) -> Tensor:
    return torch.randperm(length, generator=generator(seed, "order", epoch))


def clip_at(position: int, *, seed: int, length: int) -> int:
    """Return the clip at `position` of the run: every epoch is its own permutation of the `length` clips."""
    epoch, offset = divmod(position, length)
    return int(_order(seed, epoch, length)[offset])


@dataclass(frozen=True)
class Draws:
    """The draws for a batch. `pixel_noise` and `latent_noise` are already multiplied by their strength, which the
    network gets as `strength`."""

    sigma: Float[Tensor, "b"]
    eps: Float[Tensor, "b c f h w"]
    dropped: Bool[Tensor, "b"]
    strength: Float[Tensor, "b"]
    pixel_noise: Float[Tensor, "b 3 H W"] | None = None
    latent_noise: Float[Tensor, "b _ _ _"] | Float[Tensor, "b _ _ _ _"] | None = None

    def to(self, device: torch.device) -> "Draws":
        """Return the same draws on `device`."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        moved: dict[str, Any] = {name: value if value is None else value.to(device) for name, value in values}
        return Draws(**moved)


def sigma_distribution(config: SigmaConfig) -> SigmaDistribution:
    """Return the training distribution of sigma that a recipe asks for."""
    return SigmaDistribution(config.p_mean, config.p_std, config.uniform_share, config.uniform_range)


def draw(
    condition: ConditionConfig,
    distribution: SigmaDistribution,
    generators: list[torch.Generator],
    *,
    latent_shape: torch.Size,
    image_shape: torch.Size,
) -> Draws:
    """Draw for one clip from each generator; `latent_shape` is (c, f, h, w), `image_shape` (3, H, W)."""
    each = [_draw_one(condition, distribution, g, latent_shape, image_shape) for g in generators]
    columns = ((field.name, [getattr(one, field.name) for one in each]) for field in fields(Draws))
    batch: dict[str, Any] = {name: None if column[0] is None else torch.cat(column) for name, column in columns}
    return Draws(**batch)


def _draw_one(
    condition: ConditionConfig,
    distribution: SigmaDistribution,
    g: torch.Generator,
    latent_shape: torch.Size,
    image_shape: torch.Size,
) -> Draws:
    sigma = distribution.sample(g)[None]
    eps = torch.randn((1, *latent_shape), generator=g)
    dropped = torch.rand(1, generator=g) < condition.dropout
    pixel_noise = latent_noise = None
    if isinstance(condition, TimeNoiseConfig):
        if condition.reference:
            normals = torch.randn(1, generator=g), torch.randn(1, generator=g)
            latent_noise, strength = reference_timenoise(condition, sigma, *normals)
        else:
            c, f, h, w = latent_shape
            still = torch.zeros((1, c, f, h, w) if condition.per_frame else (1, c, h, w))
            noise = TimeNoise(condition.beta_m, condition.a, spread=condition.spread, mu_max=condition.mu_max)
            latent_noise, strength = noise(still, distribution.cdf(sigma), generator=g)
            if not condition.told:
                strength = torch.zeros_like(strength)
    else:
        strength = (
            torch.full((1,), condition.noise_aug_strength) if condition.noise == "none" else _lognormal(condition, g)
        )
        if strength > 0:
            pixel_noise = strength * torch.randn((1, *image_shape), generator=g)
    return Draws(sigma, eps, dropped, strength, pixel_noise, latent_noise)


def reference_timenoise(
    config: TimeNoiseConfig, sigma: Float[Tensor, "b"], y: Float[Tensor, "b"], scalar: Float[Tensor, "b"]
) -> tuple[Float[Tensor, "b 1 1 1"], Float[Tensor, "b"]]:
    """Compute the reference implementation's noise and beta from normals: t = sigma / 700, one offset each."""
    t = (sigma / REFERENCE_SIGMA_MAX).clamp(max=1)
    beta = logit_normal(y, mu(t, a=config.a, mu_max=config.mu_max), beta_m=config.beta_m, spread=config.spread)
    return (beta * scalar)[:, None, None, None], beta


def _lognormal(config: PixelNoiseConfig, g: torch.Generator) -> Float[Tensor, "1"]:
    return (config.p_mean + config.p_std * torch.randn(1, generator=g)).exp()


def build_condition(
    raw: Float[Tensor, "b c h w"],
    embeddings: Float[Tensor, "b 1 d"],
    *,
    fps: Float[Tensor, "b"],
    motion_bucket_id: Float[Tensor, "b"],
    draws: Draws,
) -> SVDCondition:
    """Make the condition of a training step from raw image latents.

    It is noised after the VAE where `draws` says so, and dropped per clip: zero latents and zero embedding together, as
    in the unconditional branch of guidance.
    """
    latents = raw
    if draws.latent_noise is not None:
        latents = draws.latent_noise + (raw if draws.latent_noise.ndim == 4 else raw[:, :, None])
    kept = (~draws.dropped).to(raw.dtype)
    return SVDCondition(
        latents * kept.view(-1, *[1] * (latents.ndim - 1)),
        embeddings * kept[:, None, None],
        torch.stack([fps, motion_bucket_id, draws.strength], dim=1),
    )
