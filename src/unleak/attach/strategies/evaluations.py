"""A pipeline's evaluations of its denoiser, as the strategies see them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal

from torch import Tensor, nn

from unleak.attach.modular import is_modular
from unleak.attach.schedule import steps_counted
from unleak.attach.seams import Condition, Seam
from unleak.attach.stand_in import standing_in

__all__ = ["Branch", "Evaluation", "branches_of", "condition_of", "copy_of", "evaluations", "tensor_of"]

Branch = Literal["both", "conditional", "unconditional", "other"]
DENOISERS = ("transformer", "transformer_2", "unet")
"""Attributes of a pipeline that hold its denoisers."""
_CONTEXTS: dict[str, Branch] = {
    "cond": "conditional",
    "pred_cond": "conditional",
    "uncond": "unconditional",
    "pred_uncond": "unconditional",
}
"""Names of cache contexts that say which branch an evaluation predicts."""


@dataclass
class Evaluation:
    """One evaluation of the denoiser: `run(image)` performs it, with the image's latents replaced if given."""

    step: int
    """The step of the schedule that it belongs to, from 0. Both evaluations of a second-order step are of that step."""
    steps: int
    """The number of steps of the schedule."""
    branch: Branch
    """What it predicts. `both`: the unconditional half of the batch, then the conditional one. `other`: a perturbed
    prediction of guidance with more than two branches."""
    run: Callable[..., Any]
    image: Callable[[], Tensor]
    """The image's latents in its input, every frame of them."""
    arguments: dict[str, Any]
    """The arguments of the denoiser's forward by name."""
    network: Any
    """The denoiser."""
    earlier: Any = None
    """What the conditional branch of this step returned, when it is the turn of another one."""

    @property
    def progress(self) -> float:
        """0 at the first step, 1 at the last."""
        return self.step / max(self.steps - 1, 1)


@contextmanager
def evaluations(pipe: Any, seam: Seam, change: Callable[[Evaluation], Any]) -> Iterator[None]:
    """Let `change` answer every evaluation of the denoiser that `pipe` makes in the body, in place of the denoiser.

    The denoiser itself is not touched: a stand-in takes its place in this pipeline. Another pipeline that shares the
    denoiser never notices, and whatever wraps the denoiser (offloading, compilation, a cache) stays within.
    """
    calls = _Calls(pipe, seam, change)
    with ExitStack() as stack:
        for name in DENOISERS:
            if isinstance(network := pipe.__dict__.get(name), nn.Module):
                stack.enter_context(standing_in(pipe, name, calls.answers(name, network)))
        yield


def branches_of(pipeline: type, seam: Seam, strategy: str) -> None:
    """Raise ValueError if it is not known how this pipeline evaluates its guided branches."""
    if seam.branches is None:
        raise ValueError(
            f"{strategy} cannot be attached to {pipeline.__name__}: its guidance has other than the two usual"
            " branches, or is not known to have them. A start works."
        )


def condition_of(pipeline: type, seam: Seam, strategy: str) -> Condition:
    """Return where the image is in the denoiser's input; ValueError if it is nowhere to be changed."""
    branches_of(pipeline, seam, strategy)
    if seam.condition is None:
        raise ValueError(
            f"{strategy} cannot be attached to {pipeline.__name__}: its image does not enter the denoiser as latents"
            " beside the noise, or is not known to. A start works."
        )
    return seam.condition


def copy_of(output: Any) -> Any:
    """Return a copy of what a denoiser returned."""
    prediction = tensor_of(output).clone()
    return (prediction, *output[1:]) if isinstance(output, tuple) else type(output)(sample=prediction)


def tensor_of(output: Any) -> Tensor:
    """Return the prediction in what a denoiser returned."""
    prediction = output[0] if isinstance(output, tuple) else output.sample
    assert isinstance(prediction, Tensor)
    return prediction


class _Calls:
    """Tells the evaluations of one call of a pipeline apart.

    The step is the number of times that the pipeline has called `step` of its scheduler. Within a step, the branch is
    the one whose cache context the pipeline opened, or what its guider says; otherwise the conditional one comes first.
    """

    def __init__(self, pipe: Any, seam: Seam, change: Callable[[Evaluation], Any]) -> None:
        self.pipe, self.seam, self.change = pipe, seam, change
        self.total, self.seen, self.earlier = -1, 0, None
        self.context: str | None = None

    def answers(self, part: str, network: Any) -> dict[str, Callable[..., Any]]:
        """Return what a stand-in for `network` answers itself."""
        cls: Any = getattr(network, "_orig_mod", network).__class__  # of a compiled module the one within
        names = list(signature(cls.forward).parameters)[1:]
        own: dict[str, Callable[..., Any]] = {
            "__call__": lambda *args, **kwargs: self(part, network, names, args, kwargs)
        }
        if hasattr(network, "cache_context"):
            own["cache_context"] = lambda name, *args, **kwargs: self._in_context(
                name, network.cache_context(name, *args, **kwargs)
            )
        return own

    @contextmanager
    def _in_context(self, name: str, plain: AbstractContextManager[Any]) -> Iterator[Any]:
        before, self.context = self.context, name
        try:
            with plain as value:
                yield value
        finally:
            self.context = before

    def __call__(self, part: str, network: Any, names: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = dict(zip(names, args, strict=False)) | kwargs
        step, steps, total = steps_counted(self.pipe.scheduler)
        if total != self.total:
            self.total, self.seen = total, 0
        self.seen += 1
        condition = self.seam.condition
        name = condition.argument if condition else ""

        def image() -> Tensor:
            assert condition is not None
            latents: Tensor = given[name][condition.place(self.pipe)]
            return latents

        def run(latents: Tensor | None = None) -> Any:
            if latents is None:
                return network(*args, **kwargs)
            assert condition is not None
            changed = given[name].clone()
            changed[condition.place(self.pipe)] = latents
            if name in kwargs:
                return network(*args, **kwargs | {name: changed})
            at = names.index(name)
            return network(*args[:at], changed, *args[at + 1 :], **kwargs)

        output = self.change(Evaluation(step, steps, self._branch(part), run, image, given, network, self.earlier))
        self.earlier = output if self.seen == 1 else self.earlier
        return output

    def _branch(self, part: str) -> Branch:
        if self.context in _CONTEXTS:
            return _CONTEXTS[self.context]
        if self.context is not None and self.context.startswith(("uncond_", "pred_")):
            return "other"
        if is_modular(self.pipe):
            if self.seen == 1:
                return "conditional"
            guider = getattr(self.pipe, "guider_2" if part == "transformer_2" else "guider")
            return "unconditional" if guider.is_unconditional else "other"
        if self.seam.branches == "separate":
            return "conditional" if self.seen == 1 else "unconditional"
        guided = getattr(self.pipe, "do_classifier_free_guidance", None)
        if guided is None:  # CogVideoX keeps it to itself
            guided = self.pipe.guidance_scale > 1
        return "both" if guided else "conditional"
