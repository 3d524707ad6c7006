"""TimeNoise: noise the conditional image more at noisier times, so that it cannot be copied (arXiv 2406.15735)."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

__all__ = ["TimeNoise", "logit_normal", "mu"]


def mu(t: Float[Tensor, " b"], *, a: float | int = 5.0, mu_max: float | int = 1.0) -> Float[Tensor, " b"]:
    """mu(t) = mu_max (2 t^a - 1), t in [0, 1]: from -mu_max on clean video to mu_max on pure noise."""
    return mu_max * (2 * t**a - 1)


def logit_normal(
    y: Float[Tensor, " b"], mu: Float[Tensor, " b"], *, beta_m: float | int, spread: float | int = 1.0
) -> Float[Tensor, " b"]:
    """beta_s in [0, beta_m] with logit(beta_s / beta_m) = mu + spread y; y ~ N(0, 1) gives the logit-normal law."""
    return beta_m * torch.sigmoid(mu + spread * y)


class TimeNoise:
    """y_s = y + beta_s eps, logit(beta_s / beta_m) ~ N(mu(t), spread^2), mu(t) = mu_max (2 t^a - 1).

    Higher `beta_m` or lower `a`: more motion, less consistency and likeness to the image. `beta_m` is in the units of
    the condition it is added to; `beta_m = 0` is the plain condition. For training: sampling keeps a clean image.
    """

    def __init__(
        self,
        beta_m: float | int = 100.0,
        a: float | int = 5.0,
        *,
        spread: float | int = 1.0,
        mu_max: float | int = 1.0,
    ) -> None:
        if not (beta_m >= 0 and a > 0 and spread >= 0):
            raise ValueError(f"TimeNoise needs beta_m >= 0, a > 0 and spread >= 0, not {beta_m}, {a} and {spread}.")
        self.beta_m, self.a, self.spread, self.mu_max = beta_m, a, spread, mu_max

    def __repr__(self) -> str:
        return f"TimeNoise(beta_m={self.beta_m}, a={self.a}, spread={self.spread}, mu_max={self.mu_max})"

    def mu(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Centre of logit(beta_s / beta_m) at time t in [0, 1]."""
        return mu(t, a=self.a, mu_max=self.mu_max)

    def sample_beta(self, t: Float[Tensor, " b"], generator: torch.Generator | None = None) -> Float[Tensor, " b"]:
        """One noise strength in [0, beta_m] per sample."""
        if not ((t >= 0) & (t <= 1)).all():
            raise ValueError(
                f"t must lie in [0, 1] (0 clean, 1 pure noise), not {t.min():g} to {t.max():g}: rescale it."
            )
        return logit_normal(_normal_like(t, generator), self.mu(t), beta_m=self.beta_m, spread=self.spread)

    def __call__(
        self, condition: Float[Tensor, "b ..."], t: Float[Tensor, " b"], generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "b ..."], Float[Tensor, " b"]]:
        """Noise `condition` at times `t`: one strength beta per sample, independent noise per element; returns both."""
        if condition.shape[:1] != t.shape:
            raise ValueError(f"t must be one time per sample, [{len(condition)}], not {list(t.shape)}.")
        beta = self.sample_beta(t, generator)
        strength = beta.to(condition).reshape(-1, *[1] * (condition.ndim - 1))
        return condition + strength * _normal_like(condition, generator), beta

    def attach(
        self,
        model: nn.Module,
        *,
        channels: slice,
        frames: slice = slice(None),
        layout: str = "b c f h w",
        argument: str = "hidden_states",
        time: str = "timestep",
        num_train_timesteps: float | int = 1000,
    ) -> RemovableHandle:
        """Noise the image in the input of somebody else's network while it is trained; `remove()` what is returned.

        channels, frames: where in the argument called `argument`, whose axes are `layout`, the image's latents are.
        time: the argument with the timestep, one for each clip (of several, as one a token, the noisiest counts);
            divided by `num_train_timesteps` it is t.

        A forward pre-hook: it acts when the network is in training mode, once a call, with noise from the global
        generator, so that a forward pass recomputed for its gradient sees the same. It can be attached before or after
        the network is compiled, wrapped for several processes, or given adapters; nothing is written into the caller's
        tensors. Raises ValueError for a network without these arguments.
        """
        target = model
        while isinstance(inner := _wrapped(target), nn.Module):
            target = inner
        axes = layout.split()
        if axes[:1] != ["b"] or "c" not in axes or "f" not in axes:
            raise ValueError(f"layout {layout!r}: name the axes, b first, c and f among them, such as 'b c f h w'.")
        names = list(inspect.signature(_undecorated(target)).parameters)
        open_ended = any(name in names for name in ("args", "kwargs"))
        if missing := [name for name in (argument, time) if name not in names and not open_ended]:
            raise ValueError(
                f"{type(target).__name__} takes no {' and no '.join(missing)}: it takes {', '.join(names)}; "
                "say which holds the latents (argument) and which the timestep (time)."
            )
        where = [slice(None)] * len(axes)
        where[axes.index("c")], where[axes.index("f")] = channels, frames
        index = tuple(where)

        def noised(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if not module.training or not self.beta_m:
                return None
            given = dict(zip(names, args, strict=False)) | kwargs
            sample, timestep = given[argument], given[time]
            t = timestep.reshape(len(timestep), -1).amax(1) if timestep.ndim else timestep.expand(len(sample))
            t = (t.float() / num_train_timesteps).clamp(0, 1)
            # Not through `__call__`, whose check of t would stop a compiled graph.
            beta = logit_normal(torch.randn_like(t), self.mu(t), beta_m=self.beta_m, spread=self.spread)
            image = sample[index]
            if not image.numel():
                raise ValueError(
                    f"TimeNoise: nothing is at these channels and frames of {argument}, {list(sample.shape)}, {layout}."
                )
            noisy = sample.clone()
            noisy[index] = image + beta.to(image).reshape(-1, *[1] * (image.ndim - 1)) * torch.randn_like(image)
            if argument in kwargs:
                return args, kwargs | {argument: noisy}
            place = names.index(argument)
            return (*args[:place], noisy, *args[place + 1 :]), kwargs

        return target.register_forward_pre_hook(noised, with_kwargs=True)


def _wrapped(model: nn.Module) -> Any:
    """What torch.compile, DistributedDataParallel or peft have put something around."""
    base = getattr(model, "get_base_model", None)
    return getattr(model, "_orig_mod", None) or getattr(model, "module", None) or (base() if base else None)


def _undecorated(model: nn.Module) -> Callable[..., Any]:
    return inspect.unwrap(type(model).forward.__get__(model))


def _normal_like(tensor: Tensor, generator: torch.Generator | None) -> Tensor:
    # A generator draws on its own device only, so that a CPU seed gives the same noise on every machine.
    device = generator.device if generator is not None else tensor.device
    return torch.randn(tensor.shape, generator=generator, device=device, dtype=tensor.dtype).to(tensor.device)
