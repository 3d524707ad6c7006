"""Gather the first two moments of video latents, E[X_0] and E[X_0^2]; merge, save and resample them."""

import json
import os
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from jaxtyping import Float, Float64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from unleak.core.temporary import temporary_beside

__all__ = ["LatentMoments", "MomentsMeta"]

_VERSION = 1
_LAYOUT = "c f h w"

# What torch's unpickler raises on damaged files, seen by damaging files.
DAMAGED = (
    UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    struct.error,
)


@dataclass(frozen=True)
class MomentsMeta:
    """What the moments were gathered from. Empty or None: not known."""

    model: str = ""
    """Name of the model, for people."""
    vae: str = ""
    """The latent space, as `unleak.attach.latent_space` names it: moments serve every model that shares it."""
    fps: float | int | None = None
    """Frame rate of the clips, Hz."""
    height: int | None = None
    """Size of the clips, pixels."""
    width: int | None = None
    source: str = ""
    """Where the clips came from."""


@dataclass(frozen=True, eq=False)
class LatentMoments:
    """Element-wise moments of `count` video latents X_0 in model latent space (what the denoiser sees).

    They are population moments (divided by n) in float64 on the CPU. `count` is None if the file does not record it, as
    those of the reference implementation do not.
    """

    count: int | None
    mean: Float64[Tensor, "c f h w"]
    mean_square: Float64[Tensor, "c f h w"]
    meta: MomentsMeta = field(default_factory=MomentsMeta)

    def __post_init__(self) -> None:
        for moment in (self.mean, self.mean_square):
            if moment.dtype != torch.float64 or moment.ndim != 4 or moment.shape != self.mean.shape:
                raise ValueError(
                    f"moments are two float64 tensors of one shape [c, f, h, w], not {moment.dtype}"
                    f" {list(moment.shape)} beside {list(self.mean.shape)}: convert them with .double()."
                )
            if not moment.numel():
                raise ValueError(f"moments of shape {list(moment.shape)} hold nothing: make them again.")
            if not moment.isfinite().all():
                raise ValueError("moments hold NaN or inf: make them again.")

    @classmethod
    def empty(cls, shape: Sequence[int], meta: MomentsMeta | None = None) -> "LatentMoments":
        """Return moments of no latents yet, for latents of `shape` [c, f, h, w], to begin a stream with."""
        zeros = torch.zeros(*shape, dtype=torch.float64)
        return cls(0, zeros, zeros.clone(), meta or MomentsMeta())

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return (c, f, h, w)."""
        c, f, h, w = self.mean.shape
        return c, f, h, w

    @property
    def variance(self) -> Float64[Tensor, "c f h w"]:
        """Return Var X_0 for each element, at least 0."""
        return (self.mean_square - self.mean.square()).clamp(min=0)

    @property
    def isotropic_variance(self) -> float:
        """Return tr(Cov X_0) / d, the variance of the isotropic Gaussian closest to X_0 in KL."""
        return self.variance.mean().item()

    def update(self, latents: Float[Tensor, "b c f h w"]) -> "LatentMoments":
        """Return these moments with a batch of latents added. Memory does not grow with the number of batches."""
        if tuple(latents.shape[1:]) != self.shape:
            raise ValueError(
                f"latents of shape {list(latents.shape[1:])} cannot join moments of shape {list(self.shape)}"
                " [c, f, h, w]: encode every clip at one size and frame count."
            )
        if not latents.isfinite().all():
            raise ValueError("latents hold NaN or inf, which would spoil the moments for good: leave this clip out.")
        if not len(latents):
            return self
        latents = latents.detach().cpu().double()
        return self.merge(LatentMoments(len(latents), latents.mean(0), latents.square().mean(0), self.meta))

    def merge(self, other: "LatentMoments") -> "LatentMoments":
        """Return the moments of both sets together. Any order and grouping gives the same, up to rounding."""
        if self.count is None or other.count is None:
            raise ValueError("moments without a sample count cannot be merged: nothing says how much each set weighs.")
        source = "; ".join(sorted({*self.meta.source.split("; "), *other.meta.source.split("; ")} - {""}))
        meta = replace(self.meta, source=source)
        ours, theirs = ({"shape": part.shape, **asdict(replace(part.meta, source=""))} for part in (self, other))
        if ours != theirs:
            differing = ", ".join(
                f"{name} {ours[name]!r} and {theirs[name]!r}" for name in ours if ours[name] != theirs[name]
            )
            raise ValueError(
                f"these moments are of different latents ({differing}): merge only moments of one model, size, frame"
                " count and frame rate."
            )
        count = self.count + other.count
        share = self.count / count if count else 0.0
        mean = share * self.mean + (1 - share) * other.mean
        mean_square = share * self.mean_square + (1 - share) * other.mean_square
        return LatentMoments(count, mean, mean_square, meta)

    def resample(self, num_frames: int, height: int, width: int) -> "LatentMoments":
        """Return the moments of the same videos on another latent grid: latent frames, rows and columns.

        We assume that an encoder gives the element at a place of the scene the same distribution at every clip size: a
        latent at half the size is the latent *at* that place, not an average of four. So E[X_0] and Var X_0 are fields
        over the scene, and are *read* at the new places by linear interpolation: in space between the centres of
        elements, in time between frames, with the first and the last frame fixed.

        - tr(Cov)/d is kept exactly. Averaging latents would shrink it; interpolating E[X_0^2] in place of Var X_0 would
          add the local spread of the mean, as an interpolated square is not the square of the interpolation.
        - Where mean and variance do not depend on the place (stationary data), the moments on the new grid are exact.
        - The whole scene is mapped onto the whole new grid, so another aspect ratio stretches the mean.
        """
        size = (num_frames, height, width)
        if min(size) < 1:
            raise ValueError(f"moments need at least one frame, row and column, not {size}.")
        if size == self.shape[1:]:
            return self
        _, f, h, w = self.shape
        weights = (_at_instants(f, num_frames), _at_cells(h, height), _at_cells(w, width))

        def read(grid: Float64[Tensor, "c f h w"]) -> Float64[Tensor, "c f2 h2 w2"]:
            return torch.einsum("cfhw,Ff,Hh,Ww->cFHW", grid, *weights)

        mean, variance = read(self.mean), read(self.variance)
        if self.isotropic_variance:
            variance = variance * (self.isotropic_variance / variance.mean())
        return LatentMoments(self.count, mean, mean.square() + variance, self.meta)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file. An existing file is replaced only once the new one is complete."""
        about = {"version": _VERSION, "layout": _LAYOUT, "count": self.count, **asdict(self.meta)}
        tensors = {"mean": self.mean.contiguous(), "mean_square": self.mean_square.contiguous()}
        content = save(tensors, {"unleak_moments": json.dumps(about)})
        partial = temporary_beside(Path(path))
        try:
            partial.write_bytes(content)
            partial.replace(path)
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "LatentMoments":
        """Read moments that `save` or the reference implementation (see `from_reference`) wrote.

        Raises ValueError for a damaged file, a file of something else, and moments that no data can have.
        """
        tensors, metadata = _read(path)
        if "unleak_moments" not in metadata:
            return cls.from_reference(path)
        try:
            about = dict(json.loads(metadata["unleak_moments"]))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{path} is damaged or was edited: its description is no JSON. Make it again.") from error
        version, layout, count = (about.pop(key, None) for key in ("version", "layout", "count"))
        if version != _VERSION or layout != _LAYOUT:
            raise ValueError(
                f"{path}: moments file of version {version}, layout {layout!r}; this unleak reads version {_VERSION},"
                f" layout {_LAYOUT!r}: update unleak, or make the moments again."
            )
        try:
            moments = cls(_count(count), tensors["mean"], tensors["mean_square"], _meta(about))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged or was edited: {error}. Make the moments again.") from error
        square = moments.mean.square()
        if (moments.mean_square < square - 1e-6 * (1 + square)).any():
            raise ValueError(f"{path} holds variances below zero, which no data has. Make the moments again.")
        return moments

    @classmethod
    def from_reference(cls, path: str | os.PathLike[str]) -> "LatentMoments":
        """Read a file of the reference implementation: its two pickled schemas, or the same tensors in safetensors.

        DynamiCrafter and VideoCrafter: `Expectation_X0` [1, c, f, h, w], `Tr_Cov_d`. SVD: `Expectation_x_0`
        [f, c, h, w] (frames first), `trCov_d`. They hold E[X_0] and the scalar tr(Cov)/d only, so the variance here is
        that scalar everywhere and the count is unknown. Nothing in a pickle but plain tensors is loaded.
        """
        tensors, _ = _read(path)
        match tensors:
            case {"Expectation_X0": Tensor(ndim=5, shape=(1, *_)) as mean, "Tr_Cov_d": variance}:
                mean = mean[0]
            case {"Expectation_x_0": Tensor(ndim=4) as mean, "trCov_d": variance}:
                mean = mean.transpose(0, 1)
            case _:
                raise ValueError(
                    f"{path} holds {sorted(map(str, tensors))}, not moments: expected a file of `unleak stats`, or the"
                    " reference's Expectation_X0 and Tr_Cov_d (DynamiCrafter) or Expectation_x_0 and trCov_d (SVD)."
                )
        try:
            mean, isotropic = mean.double().contiguous(), float(variance)
            if not isotropic >= 0:
                raise ValueError(f"tr(Cov)/d is {isotropic:g}, and no variance is below zero")
            return cls(None, mean, mean.square() + isotropic, MomentsMeta(source=Path(path).name))
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{path} is damaged or was edited: {error}. Download or make it again.") from error


def _count(count: Any) -> int | None:
    if count is not None and (type(count) is not int or count < 0):
        raise ValueError(f"count {count!r} is no number of clips")
    return count


def _meta(about: dict[str, Any]) -> MomentsMeta:
    for name, value in about.items():
        wanted: Any = str if name in ("model", "vae", "source") else int | float | None
        if not isinstance(value, wanted):
            raise ValueError(f"{name} {value!r} is of another kind")
    return MomentsMeta(**about)


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file, or of a pickle that holds nothing else."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no moments file at {path}.")
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError:
        pass
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, *DAMAGED) as error:  # torch reads .safetensors too
        raise ValueError(f"{path} is neither safetensors nor a pickle of plain tensors: refused.") from error
    if not isinstance(tensors, dict):
        raise ValueError(f"{path} holds a {type(tensors).__name__}, not a dictionary of tensors.")
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor) and not _is_plain(tensor):
            raise ValueError(f"{path}: {name} is no plain tensor of real numbers: refused.")
    return tensors, {}


def _is_plain(tensor: Tensor) -> bool:
    """Return whether its storage holds all its elements: a few bytes of a pickle can be a view of terabytes."""
    if tensor.layout is not torch.strided or tensor.is_meta or not tensor.is_floating_point():
        return False
    return tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()


def _at_cells(old: int, new: int) -> Float64[Tensor, "new old"]:
    """Return the weights that read a field, known at the centres of `old` cells, at the centres of `new` cells."""
    return _linear(((torch.arange(new, dtype=torch.float64) + 0.5) * old / new - 0.5).clamp(0, old - 1), old)


def _at_instants(old: int, new: int) -> Float64[Tensor, "new old"]:
    """Return the same for instants; the first and the last stay, so frame 0 stays the frame of the image."""
    return _linear(torch.linspace(0, old - 1, new, dtype=torch.float64), old)


def _linear(position: Float64[Tensor, " new"], old: int) -> Float64[Tensor, "new old"]:
    return (1 - (torch.arange(old) - position[:, None]).abs()).clamp(min=0)
