"""A pipeline as training, diagnosis, statistics and parity tests see it: one protocol for every family.

How noisy a clip is is said in (alpha, sigma) of x_t = alpha x_0 + sigma eps, whatever the network itself is told.
Latents are `b c f h w` in model latent space (what the denoiser sees, before any input scaling), images `b 3 H W` and
videos `b f 3 H W` in [-1, 1].
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unleak.attach.apply import applied, summary
from unleak.attach.schedule import nearest, process_of
from unleak.core.process import RF, VE, VP, Level, NoiseProcess
from unleak.core.start import Start
from unleak.families.registry import family_of, viewed

__all__ = ["GREY", "Levels", "View", "has_view", "in_own_dtype", "per_clip", "view_class", "view_of"]

GREY = 128 / 127.5 - 1
"""The grey of 128 of 255, which stands for no picture in families that know no absence."""


@dataclass(frozen=True)
class Levels:
    """How noisy each clip of a batch is: x_t = alpha x_0 + sigma eps."""

    alpha: Float[Tensor, "b"]
    sigma: Float[Tensor, "b"]

    @classmethod
    def of(cls, level: "Level | Levels", like: Tensor) -> "Levels":
        """Return one level for every clip of `like`; levels that are such already are returned as they are."""
        if isinstance(level, Levels):
            return level
        dtype = torch.promote_types(like.dtype, torch.float32)
        alpha, sigma = (like.new_full((len(like),), value, dtype=dtype) for value in (level.alpha, level.sigma))
        return cls(alpha, sigma)

    @property
    def edm_sigma(self) -> Float[Tensor, "b"]:
        """sigma / alpha, the sigma of EDM; inf for pure noise."""
        return self.sigma / self.alpha

    @property
    def flow_sigma(self) -> Float[Tensor, "b"]:
        """The rectified-flow sigma of the same signal-to-noise ratio, sigma / (alpha + sigma)."""
        return self.sigma / (self.alpha + self.sigma)

    def to(self, like: Tensor) -> "Levels":
        """Return the same levels on the device of `like`."""
        return Levels(self.alpha.to(like.device), self.sigma.to(like.device))

    def __getitem__(self, clips: Any) -> "Levels":
        return Levels(self.alpha[clips], self.sigma[clips])


class View(ABC):
    """The view of one pipeline. Holds the pipeline and changes nothing in it.

    `arguments` are those of the pipeline's own call by name (`fps`, `motion_bucket_id`, `mask` ...); the view uses what
    the network is told of them. A family derives from this class and implements what is abstract; what trains it needs
    besides is said in `unleak.train.objectives`.
    """

    absent: ClassVar[str]
    """What stands in the place of the image when it is left out, for people."""
    trained_on: ClassVar[str | None] = None
    """The law of noise levels that the family is trained on: `sigma`, `timestep` or `flow`; None: not to be trained."""
    noised: ClassVar[tuple[str, ...]] = ("latents",)
    """Which parts of the condition TimeNoise can be put on, first the one that the paper puts it on."""
    temporal: ClassVar[tuple[str, ...]] = ()
    """Patterns of the parameters that work along time."""
    lora_targets: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Endings of the names of the layers that adapters are put beside, by `attention` and `blocks`."""
    experts_known: ClassVar[bool] = False
    """Whether the family has models with several networks, each for some of the levels."""
    samples_posterior: ClassVar[bool] = False
    """Whether `encode_posterior` is there: the family was trained on samples of its VAE's posterior."""
    first_frame_is_clean: Any = False
    """Whether the image stands in the noisy video itself, as its first frame, which then has no loss."""

    def __init__(self, pipe: Any, arguments: Mapping[str, Any] | None = None, *, experts: str | None = None):
        if experts is not None and not self.experts_known:
            raise ValueError(f"experts: {experts}: this model has a single network; leave experts away")
        self.pipe, self.arguments = pipe, dict(arguments or {})

    @cached_property
    def process(self) -> NoiseProcess:
        """The noise process of the pipeline's scheduler."""
        return process_of(self.pipe.scheduler)

    @property
    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """The networks that are trained, by their names in the pipeline."""

    @abstractmethod
    def encode_video(self, video: Float[Tensor, "b F 3 H W"]) -> Float[Tensor, "b c f h w"]:
        """Encode videos to model latents: the mode of the posterior."""

    @abstractmethod
    def encode_condition(self, image: Float[Tensor, "b 3 H W"], prompts: Sequence[str], num_frames: int) -> Any:
        """Encode everything that the network is told of images and prompts, for videos of so many frames."""

    @abstractmethod
    def without_image(self, image: Float[Tensor, "b 3 H W"], prompts: Sequence[str], num_frames: int) -> Any:
        """Encode the same with what `absent` says in the place of the image."""

    @abstractmethod
    def predict_clean(
        self, x_t: Float[Tensor, "b c f h w"], level: Level | Levels, condition: Any
    ) -> Float[Tensor, "b c f h w"]:
        """Return the network's x_0, computed in the network's own precision and returned in float32."""

    @abstractmethod
    def decode(self, latents: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b F 3 H W"]:
        """Decode model latents to videos, clip by clip as the pipeline does; nothing is clamped."""

    def encode_text(self, prompts: Sequence[str]) -> Float[Tensor, "b l d"]:
        """Encode prompts to text tokens. Raises NotImplementedError for a family that is told no text."""
        raise NotImplementedError(f"a {type(self.pipe).__name__} is told no text")

    def add_noise(
        self, x_0: Float[Tensor, "b c f h w"], eps: Float[Tensor, "b c f h w"], level: Level | Levels
    ) -> Float[Tensor, "b c f h w"]:
        """Return x_t = alpha x_0 + sigma eps."""
        levels = Levels.of(level, x_0)
        return per_clip(levels.alpha, x_0) * x_0 + per_clip(levels.sigma, x_0) * eps

    def predict(
        self, x_t: Float[Tensor, "b c f h w"], level: Level | Levels, condition: Any
    ) -> Float[Tensor, "b c f h w"]:
        """Return what the network is trained to say, in the units of `target`; x_0 unless a family says otherwise."""
        return self.predict_clean(x_t, level, condition)

    def target(
        self, x_0: Float[Tensor, "b c f h w"], eps: Float[Tensor, "b c f h w"], level: Level | Levels
    ) -> Float[Tensor, "b c f h w"]:
        """Return what `predict` should have said."""
        del eps, level
        return x_0

    def level(self, start: str) -> Level:
        """Return the level that a start names, as near as the scheduler can start."""
        return nearest(self.pipe.scheduler, Start.parse(start).resolve(self.process))

    def levels(self, start: str, steps: int) -> tuple[Level, ...]:
        """Return the levels that the pipeline steps through from `start`; its end (no noise) is left out."""
        with applied(self.pipe, start=start):
            sigmas = summary(self.pipe, num_inference_steps=steps).after
        if sigmas is None:
            raise ValueError(f"the size of the video decides on the schedule of this {type(self.pipe).__name__}")
        return tuple(nearest(self.pipe.scheduler, self.level_of(sigma)) for sigma in sigmas if sigma > 0)

    def level_of(self, sigma: float) -> Level:
        """Return the level of a sigma as the pipeline's schedule counts it."""
        match self.process:
            case VE():
                return Level(1.0, sigma)
            case RF():
                return Level(1 - sigma, sigma)
            case VP():
                alpha = 1 / math.hypot(1, sigma)
                return Level(alpha, 1.0 if math.isinf(sigma) else sigma * alpha)
        raise AssertionError(self.process)

    @property
    def device(self) -> torch.device:
        """Where the latents are: where the networks run, also if they wait elsewhere."""
        return torch.device(self.pipe._execution_device)


def per_clip(values: Float[Tensor, "b"], like: Tensor) -> Float[Tensor, "b ..."]:
    """Shape one value for each clip so that it multiplies `like`."""
    return values.to(like.device, torch.promote_types(like.dtype, torch.float32)).view(-1, *[1] * (like.ndim - 1))


def in_own_dtype(network: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a network with tensors of its own precision and return its first output in float32 at least.

    Under autocast, as in training with mixed precision, the tensors are left as they are.
    """

    def cast(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        mixed = torch.is_autocast_enabled(value.device.type)
        return value if mixed else value.to(getattr(network, "dtype", value.dtype))

    out = network(*map(cast, args), **{name: cast(value) for name, value in kwargs.items()}, return_dict=False)[0]
    return out.to(torch.promote_types(out.dtype, torch.float32))


def view_class(pipeline: str) -> type[View]:
    """Import the view of a pipeline class. Raises ValueError for a class whose family has none."""
    module, _, name = viewed(pipeline).partition(":")
    found: type[View] = getattr(import_module(module), name)
    return found


def has_view(pipe: Any) -> bool:
    """Return whether a pipeline's family has a view."""
    return any(family_of(base.__name__) is not None for base in type(pipe).__mro__)


def view_of(pipe: Any, arguments: Mapping[str, Any] | None = None) -> View:
    """Return the view of a pipeline, by its class or the nearest base. Raises ValueError if its family has none."""
    names = [base.__name__ for base in type(pipe).__mro__]
    name = next((name for name in names if family_of(name) is not None), names[0])
    return view_class(name)(pipe, arguments)
