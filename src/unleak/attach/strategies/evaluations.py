"""A pipeline's evaluations of its denoiser, as the strategies see them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unleak.attach.schedule import steps_run
from unleak.attach.seams import Condition, Seam

__all__ = ["Evaluation", "branches_of", "condition_of", "copy_of", "evaluations", "tensor_of"]


@dataclass
class Evaluation:
    """One evaluation of the denoiser: `run(image)` performs it, with the image's latents replaced if given."""

    step: int
    """Which step of the schedule it belongs to, from 0."""
    steps: int
    """How many the schedule has."""
    branch: Literal["both", "conditional", "unconditional"]
    """What it predicts; `both`: the unconditional half of the batch, then the conditional one."""
    run: Callable[..., Any]
    image: Callable[[], Tensor]
    """The image's latents in its input, every frame of them."""
    earlier: Any = None
    """What the conditional branch of this step returned, when it is the other one's turn."""

    @property
    def progress(self) -> float:
        """0 at the first step, 1 at the last."""
        return self.step / max(self.steps - 1, 1)


@contextmanager
def evaluations(pipe: Any, seam: Seam, change: Callable[[Evaluation], Any]) -> Iterator[None]:
    """Let `change` answer every evaluation of the denoiser of `pipe` in the body, in place of the denoiser.

    Only the `forward` of these modules is replaced, and put back whatever happens, so whatever else wraps them
    (offloading, compilation, a cache, another strategy) stays within.
    """
    state = _State(pipe, seam, change)
    networks = [getattr(pipe, name, None) for name in ("transformer", "transformer_2", "unet")]
    with ExitStack() as stack:
        for network in networks:
            if isinstance(network, nn.Module):
                stack.enter_context(_replaced_forward(network, state))
        yield


def branches_of(pipeline: type, seam: Seam, strategy: str) -> None:
    """Raise ValueError if it is not known how this pipeline evaluates its guided branches."""
    if seam.branches is None:
        raise ValueError(
            f"{strategy} cannot be attached to {pipeline.__name__}: its guidance has other than the two usual"
            " branches, or is not known to have them. A start works."
        )


def condition_of(pipeline: type, seam: Seam, strategy: str) -> Condition:
    """Where the image is in the denoiser's input; ValueError if it is nowhere to be changed."""
    branches_of(pipeline, seam, strategy)
    if seam.condition is None:
        raise ValueError(
            f"{strategy} cannot be attached to {pipeline.__name__}: its image does not enter the denoiser as latents"
            " beside the noise, or is not known to. A start works."
        )
    return seam.condition


def copy_of(output: Any) -> Any:
    """The same prediction again, as a denoiser returns it."""
    prediction = tensor_of(output).clone()
    return (prediction, *output[1:]) if isinstance(output, tuple) else type(output)(sample=prediction)


def tensor_of(output: Any) -> Tensor:
    """The prediction in what a denoiser returns."""
    prediction = output[0] if isinstance(output, tuple) else output.sample
    assert isinstance(prediction, Tensor)
    return prediction


class _State:
    """Tells the evaluations of a call apart: a new timestep is a new step, the second evaluation of one the other
    branch."""

    def __init__(self, pipe: Any, seam: Seam, change: Callable[[Evaluation], Any]) -> None:
        self.pipe, self.seam, self.change = pipe, seam, change
        self.timestep: float | None = None
        self.step, self.seen, self.earlier = -1, 0, None

    def __call__(self, forward: Callable[..., Any], names: list[str], args: tuple[Any, ...], kwargs: Any) -> Any:
        given = dict(zip(names, args, strict=False)) | kwargs
        timestep = float(torch.as_tensor(given["timestep"]).max())
        if timestep != self.timestep:
            first = self.timestep is None or timestep > self.timestep  # another section starts over
            self.timestep, self.seen, self.step = timestep, 0, 0 if first else self.step + 1
        self.seen += 1
        condition = self.seam.condition
        name = condition.argument if condition else ""

        def image() -> Tensor:
            assert condition is not None
            latents: Tensor = given[name][condition.place(self.pipe)]
            return latents

        def run(latents: Tensor | None = None) -> Any:
            if latents is None:
                return forward(*args, **kwargs)
            assert condition is not None
            changed = given[name].clone()
            changed[condition.place(self.pipe)] = latents
            if name in kwargs:
                return forward(*args, **kwargs | {name: changed})
            at = names.index(name)
            return forward(*args[:at], changed, *args[at + 1 :], **kwargs)

        steps = steps_run(self.pipe.scheduler)
        output = self.change(Evaluation(self.step, steps, self._branch(), run, image, self.earlier))
        self.earlier = output if self.seen == 1 else None
        return output

    def _branch(self) -> Literal["both", "conditional", "unconditional"]:
        if self.seam.branches == "separate":
            return "conditional" if self.seen == 1 else "unconditional"
        guided = getattr(self.pipe, "do_classifier_free_guidance", None)
        if guided is None:  # CogVideoX keeps it to itself
            guided = self.pipe.guidance_scale > 1
        return "both" if guided else "conditional"


@contextmanager
def _replaced_forward(network: nn.Module, state: _State) -> Iterator[None]:
    before, plain = network.__dict__.get("forward"), network.forward
    cls: Any = type(getattr(network, "_orig_mod", network))  # of a compiled module the one within
    names = list(signature(cls.forward).parameters)[1:]

    @wraps(plain)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return state(plain, names, args, kwargs)

    network.forward = forward
    try:
        yield
    finally:
        if before is None:
            del network.forward
        else:
            network.forward = before
