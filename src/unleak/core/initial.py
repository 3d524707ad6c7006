"""Describe initial noise as a distribution p_M over x_M: standard, unit-variance, and the paper's Analytic-Init."""

import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from unleak.core.moments import LatentMoments
from unleak.core.process import Level

__all__ = ["AnalyticInit", "InitialNoise", "Standard", "Unit", "parse_init"]


class InitialNoise(ABC):
    """A diagonal Gaussian p_M = N(mean, variance) from which sampling starts at a level.

    A subclass implements `mean` and `variance`, each a number or a tensor [c, f, h, w], and overrides `fitted` if it
    adapts to latents of another size. A distribution of another kind overrides `sample`, `log_prob` and `kl` too.
    """

    @abstractmethod
    def mean(self, level: Level) -> Float[Tensor, "c f h w"] | float:
        """Return E x_M."""

    @abstractmethod
    def variance(self, level: Level) -> Float[Tensor, "c f h w"] | float:
        """Return Var x_M for each element."""

    def fitted(self, shape: Sequence[int]) -> "InitialNoise":
        """Return this noise for latents of `shape` [c, f, h, w]."""
        del shape
        return self

    def sample(self, eps: Float[Tensor, "b c f h w"], level: Level) -> Float[Tensor, "b c f h w"]:
        """Return x_M = mean + std * eps for standard normal eps, computed in float32 at least."""
        mean, variance = self._moments(eps, level)
        return (mean + variance.sqrt() * eps).to(eps.dtype)

    def log_prob(self, x: Float[Tensor, "b c f h w"], level: Level) -> Float[Tensor, " b"]:
        """Return ln p_M(x) of each sample in nats, summed over its elements."""
        mean, variance = self._moments(x, level)
        return -0.5 * ((x - mean).square() / variance + (2 * math.pi * variance).log()).expand_as(x).sum((1, 2, 3, 4))

    def kl(
        self,
        q_mean: Float[Tensor, "c f h w"],
        q_variance: Float[Tensor, "c f h w"] | Float[Tensor, ""] | float,
        level: Level,
    ) -> Float[Tensor, ""]:
        """Return KL(q || p_M) of a diagonal Gaussian q in nats, summed over all elements.

        q_variance: one number stands for an isotropic q.

        Divide by `q_mean.numel()` to compare sizes. For a q with correlations, add ln(det of its diagonal / det) / 2,
        which does not depend on p_M.
        """
        mean, variance = (moment[0] for moment in self._moments(q_mean[None], level))
        ratio = torch.as_tensor(q_variance).to(q_mean) / variance
        return 0.5 * ((q_mean - mean).square() / variance + ratio - 1 - ratio.log()).sum()

    def _moments(
        self, like: Float[Tensor, "b c f h w"], level: Level
    ) -> tuple[Float[Tensor, "1 ..."], Float[Tensor, "1 ..."]]:
        fitted = self.fitted(like.shape[1:])
        dtype = torch.promote_types(like.dtype, torch.float32)
        mean, variance = (
            torch.as_tensor(moment, dtype=dtype).to(like.device)[None]
            for moment in (fitted.mean(level), fitted.variance(level))
        )
        return mean, variance


class Standard(InitialNoise):
    """N(0, c^2 I), what pipelines do. `factor` is c; None stands for that of the pipeline it is attached to."""

    def __init__(self, factor: float | int | None = None) -> None:
        if factor is not None and not factor > 0:
            raise ValueError(f"Standard needs a positive factor, not {factor}.")
        self.factor = factor

    def __repr__(self) -> str:
        return f"Standard({'' if self.factor is None else self.factor})"

    def mean(self, level: Level) -> float:
        """Return 0."""
        del level
        return 0.0

    def variance(self, level: Level) -> float:
        """Return c^2."""
        del level
        if self.factor is None:
            raise ValueError("Standard() takes its factor from a pipeline: say Standard(factor) to use it on its own.")
        return float(self.factor) ** 2


class Unit(InitialNoise):
    """N(0, (alpha^2 + sigma^2) I), the true q_M of centred data of variance 1."""

    def __repr__(self) -> str:
        return "Unit()"

    def mean(self, level: Level) -> float:
        """Return 0."""
        del level
        return 0.0

    def variance(self, level: Level) -> float:
        """Return alpha^2 + sigma^2."""
        return level.alpha**2 + level.sigma**2


class AnalyticInit(InitialNoise):
    """The isotropic Gaussian closest in KL(q_M || p) to the true marginal q_M (arXiv 2406.15735, Prop. 1).

    p_M = N(alpha_M E[X_0], (sigma_M^2 + alpha_M^2 tr(Cov X_0) / d) I). Moments of another size or frame count are
    resampled (`LatentMoments.resample`). `reference=True` computes as the published SVD code does, with
    init_noise_sigma^2 = sigma^2 + 1 in place of sigma^2: use it only to reproduce published numbers.
    """

    def __init__(self, moments: LatentMoments, *, reference: bool = False) -> None:
        if moments.count == 0:
            raise ValueError("these moments hold no video: gather some first (`unleak stats`).")
        self.moments, self.reference = moments, reference

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | os.PathLike[str],
        *,
        filename: str | None = None,
        revision: str | None = None,
        reference: bool = False,
    ) -> "AnalyticInit":
        """Load moments from a file, or from a folder or a Hub repository that holds one.

        filename: which file to read if there are several. Of the published `initial_noise_WIDTH.pt`, the widest is read
        by default, since moments serve other sizes too. Raises ValueError if there is no such file, or several.
        """
        path = _moments_file(path_or_hub_id, filename, revision)
        return cls(LatentMoments.load(path), reference=reference)

    def __repr__(self) -> str:
        about = self.moments.meta.model or self.moments.meta.source or "unnamed"
        reference = ", reference=True" if self.reference else ""
        return f"AnalyticInit({about}, {list(self.moments.shape)}{reference})"

    def fitted(self, shape: Sequence[int]) -> "AnalyticInit":
        """Return these moments on the grid of `shape` [c, f, h, w]. ValueError for another number of channels."""
        if tuple(shape) == self.moments.shape:
            return self
        c, f, h, w = shape
        if c != self.moments.shape[0]:
            raise ValueError(
                f"these moments have {self.moments.shape[0]} channels and belong to"
                f" {self.moments.meta.model or self.moments.meta.source or 'another model'}; the latents have {c}:"
                " make moments of this model with `unleak stats`."
            )
        return AnalyticInit(self.moments.resample(f, h, w), reference=self.reference)

    def mean(self, level: Level) -> Float[Tensor, "c f h w"]:
        """Return alpha E[X_0]."""
        return level.alpha * self.moments.mean

    def variance(self, level: Level) -> float:
        """Return sigma^2 + alpha^2 tr(Cov X_0) / d."""
        variance = level.sigma**2 + level.alpha**2 * self.moments.isotropic_variance
        if not self.reference:
            return variance
        if level.alpha != 1:
            raise ValueError(
                "reference=True is the published arithmetic of SVD (VE); elsewhere the default is published."
            )
        return variance + 1


def parse_init(init: str | InitialNoise, moments: LatentMoments | None = None) -> InitialNoise:
    """Return the initial noise of a name: `standard`, `unit` or `analytic`, which needs `moments`.

    An InitialNoise is returned as it is. ValueError for anything else.
    """
    match init:
        case InitialNoise():
            return init
        case "standard":
            return Standard()
        case "unit":
            return Unit()
        case "analytic" if moments is not None:
            return AnalyticInit(moments)
        case "analytic":
            raise ValueError(
                "init 'analytic' needs moments of this model's latents: make them with `unleak stats --videos DIR --out"
                " moments.safetensors`, then pass unleak.AnalyticInit.from_pretrained('moments.safetensors')."
            )
    given = repr(init) if isinstance(init, str) else f"of type {type(init).__name__}"
    raise ValueError(
        f"init {given} is unknown: choose standard, unit or analytic, or pass"
        " unleak.AnalyticInit.from_pretrained('moments.safetensors'), unleak.AnalyticInit(moments) or another"
        " InitialNoise."
    )


def _moments_file(source: str | os.PathLike[str], filename: str | None, revision: str | None) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    if path.is_dir():
        return path / (filename or _only([file.name for file in path.iterdir()], source))
    if path.suffix in (".safetensors", ".pt") or str(source).count("/") != 1:
        raise FileNotFoundError(f"no moments file at {source}, and it is no Hub id (owner/name) either.")
    import huggingface_hub  # only a Hub id needs it

    try:
        files = [] if filename else huggingface_hub.list_repo_files(str(source), revision=revision)
        return Path(huggingface_hub.hf_hub_download(str(source), filename or _only(files, source), revision=revision))
    except huggingface_hub.errors.HfHubHTTPError.__bases__ as error:  # OSError and that of the Hub's HTTP client
        reason = " ".join(str(error).split())
        raise ValueError(f"{source}: no such file or folder here, and the Hub does not give it ({reason})") from error


def _only(names: list[str], source: str | os.PathLike[str]) -> str:
    found = sorted(name for name in names if name.endswith((".safetensors", ".pt")))
    widths = [re.fullmatch(r"initial_noise_(\d+)\.pt", name) for name in found]
    if found and all(widths):
        return max(filter(None, widths), key=lambda width: int(width[1]))[0]
    if not found:
        raise ValueError(f"{source} holds no moments file (.safetensors or .pt): make one with `unleak stats`.")
    if len(found) > 1:
        raise ValueError(f"{source} holds several moments files, {', '.join(found)}: name the file (filename=).")
    return found[0]
