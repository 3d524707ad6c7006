"""TimeNoise (arXiv 2406.15735): more noise on the conditioning image at noisier times, so that it is not copied."""

import inspect
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from unleak.core.numbers import within

__all__ = ["AttachedTimeNoise", "TimeNoise", "logit_normal", "mu"]

_PATIENCE = 10  # training steps without any noise after which a warning says so


def mu(t: Float[Tensor, " b"], *, a: float | int = 5.0, mu_max: float | int = 1.0) -> Float[Tensor, " b"]:
    """Return mu(t) = mu_max (2 t^a - 1) for t in [0, 1]: -mu_max for clean video, mu_max for pure noise."""
    return mu_max * (2 * t**a - 1)


def logit_normal(
    y: Float[Tensor, " b"], mu: Float[Tensor, " b"], *, beta_m: float | int, spread: float | int = 1.0
) -> Float[Tensor, " b"]:
    """Return beta_s in [0, beta_m] with logit(beta_s / beta_m) = mu + spread y; it is logit-normal for y ~ N(0, 1)."""
    return beta_m * torch.sigmoid(mu + spread * y)


class TimeNoise:
    """y_s = y + beta_s eps, logit(beta_s / beta_m) ~ N(mu(t), spread^2), mu(t) = mu_max (2 t^a - 1).

    A higher `beta_m` or a lower `a` gives more motion, and less consistency and likeness to the image. `beta_m` is in
    the units of the condition that it is added to; `beta_m = 0` leaves the condition as it is. TimeNoise is for
    training: sampling keeps a clean image.
    """

    def __init__(
        self,
        beta_m: float | int = 100.0,
        a: float | int = 5.0,
        *,
        spread: float | int = 1.0,
        mu_max: float | int = 1.0,
    ) -> None:
        if not (within(beta_m, 0) and within(a, 0) and a and within(spread, 0)):
            raise ValueError(
                f"TimeNoise needs beta_m >= 0, a > 0 and spread >= 0, not {beta_m!r}, {a!r} and {spread!r}."
            )
        if not within(mu_max):
            raise ValueError(f"TimeNoise needs a number for mu_max, not {mu_max!r}.")
        self.beta_m, self.a, self.spread, self.mu_max = beta_m, a, spread, mu_max

    def __repr__(self) -> str:
        return f"TimeNoise(beta_m={self.beta_m}, a={self.a}, spread={self.spread}, mu_max={self.mu_max})"

    def mu(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Return the centre of logit(beta_s / beta_m) at time t in [0, 1]."""
        return mu(t, a=self.a, mu_max=self.mu_max)

    def sample_beta(self, t: Float[Tensor, " b"], generator: torch.Generator | None = None) -> Float[Tensor, " b"]:
        """Draw one noise strength in [0, beta_m] for each sample. ValueError for t outside [0, 1]."""
        if not ((t >= 0) & (t <= 1)).all():
            raise ValueError(
                f"t must lie in [0, 1] (0 clean, 1 pure noise), not {t.min():g} to {t.max():g}: rescale it."
            )
        return logit_normal(_normal_like(t, generator), self.mu(t), beta_m=self.beta_m, spread=self.spread)

    def __call__(
        self, condition: Float[Tensor, "b ..."], t: Float[Tensor, " b"], generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "b ..."], Float[Tensor, " b"]]:
        """Add noise to `condition` at times `t`; return the noised condition and the strength beta of each sample.

        The noise is independent for each element. ValueError unless there is one time for each sample.
        """
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
        always: bool = False,
    ) -> "AttachedTimeNoise":
        """Add noise to the image in the input of a network while it is trained; `remove()` on the result takes it off.

        channels, frames: where in the argument called `argument`, whose axes are `layout`, the image's latents are.
        time: the argument with the timestep, one for each clip (of several, as one a token, the noisiest counts);
            t is that timestep divided by `num_train_timesteps`.
        always: add noise in evaluation mode too, wherever gradients are recorded; some trainers train adapters so.

        This is a forward pre-hook. It acts when the network is in training mode, once a call, with noise from the
        global generator, so that a forward pass recomputed for its gradient sees the same. It can be attached before or
        after the network is compiled, wrapped for several processes, or given adapters; nothing is written into the
        caller's tensors. Raises ValueError for a network without these arguments. Warns once, after 10 steps, if the
        network is trained and the hook never acts: because it is in evaluation mode, or the trainer goes around
        `forward`.
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

        attached = AttachedTimeNoise(target)

        def noised(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if not module.training and not (always and torch.is_grad_enabled()):
                attached.rests()
                return None
            attached.acted = True
            if not self.beta_m:
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

        attached.handles.append(target.register_forward_pre_hook(noised, with_kwargs=True))
        return attached


class AttachedTimeNoise:
    """The result of `TimeNoise.attach`: `remove()` takes the noise off, and so does leaving a `with` block.

    It watches whether the noise ever acts, and warns once if it does not while the network is trained.
    """

    def __init__(self, network: nn.Module):
        self.network = weakref.ref(network)
        self.kind = type(network).__name__
        self.acted, self.warned = False, False
        self.rested = self.steps = 0
        watching = register_optimizer_step_post_hook(lambda optimizer, *_: self._stepped(optimizer))
        weakref.finalize(network, watching.remove)
        self.handles: list[Any] = [watching]

    def remove(self) -> None:
        """Take the noise off."""
        for handle in self.handles:
            handle.remove()

    def __enter__(self) -> "AttachedTimeNoise":
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def rests(self) -> None:
        """Count a forward pass in evaluation mode whose gradient is recorded, as only training does."""
        if self.acted or self.warned or torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return
        self.rested += 1
        if self.rested >= _PATIENCE:
            self._warn(
                f"{self.rested} forward passes with gradients were in evaluation mode: call .train() before them, or"
                " attach with always=True"
            )

    def _stepped(self, optimizer: torch.optim.Optimizer) -> None:
        network = self.network()
        if self.acted or self.warned or network is None:
            return
        own = {id(weight): weight.requires_grad for weight in network.parameters()}
        trained = (id(weight) in own for group in optimizer.param_groups for weight in group["params"])
        # Adapters that are kept outside the network leave none of its own weights to train.
        if not any(trained) and any(own.values()):
            return
        self.steps += 1
        if self.steps >= _PATIENCE and not self.rested:
            self._warn(
                f"in {self.steps} optimizer steps its forward was not called once in training: the trainer goes around"
                " it, so noise the condition where the trainer makes it (docs/train-elsewhere.md)"
            )

    def _warn(self, why: str) -> None:
        self.warned = True
        warnings.warn(f"TimeNoise has had no effect on this {self.kind}: {why}.", UserWarning, stacklevel=3)


def _wrapped(model: nn.Module) -> Any:
    """Return the model inside the wrapper of torch.compile, DistributedDataParallel or peft; None without one."""
    base = getattr(model, "get_base_model", None)
    return getattr(model, "_orig_mod", None) or getattr(model, "module", None) or (base() if base else None)


def _undecorated(model: nn.Module) -> Callable[..., Any]:
    return inspect.unwrap(type(model).forward.__get__(model))


def _normal_like(tensor: Tensor, generator: torch.Generator | None) -> Tensor:
    # A generator draws on its own device only, so that a CPU seed gives the same noise on every machine.
    device = generator.device if generator is not None else tensor.device
    return torch.randn(tensor.shape, generator=generator, device=device, dtype=tensor.dtype).to(tensor.device)
