"""Attaches the fixes other than a start to a ComfyUI model.

ComfyUI evaluates the guided branches as a list of conditionings: the conditional one first, then the unconditional one,
which is None without guidance. A wrapper of this evaluation (CALC_COND_BATCH) sees it for every sampler and batch size.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from unleak.attach.strategies.condition_noise import ConditionNoise
from unleak.attach.strategies.guidance_interval import GuidanceInterval
from unleak.attach.strategies.low_pass import LowPass
from unleak.attach.strategies.motion_amplitude import MotionAmplitude, amplified
from unleak.attach.strategies.reference_bias import ReferenceBias
from unleak.comfyui.attention import BiasedAttention, photo_tokens
from unleak.comfyui.conditions import ImagePlace, image_place, text_length, with_image
from unleak.comfyui.sampling import Sampling

__all__ = ["Wrap", "attach", "wrap_of"]

Branches = list[Any]
"""What the denoiser predicts for each branch, or the conditioning of each."""


class Evaluation:
    """One evaluation of the guided branches of a denoiser."""

    def __init__(self, executor: Any, model: Any, conds: Branches, x: Tensor, sigma: Tensor, options: Any, rest: Any):
        self.conds, self.sigma, self.model_sampling = conds, float(sigma.max()), model.model_sampling
        self._call = (executor, model, x, sigma, options, rest)
        self.transformer_options = options.get("transformer_options", {})
        self.sigmas = self.transformer_options.get("sample_sigmas")

    @property
    def guided(self) -> bool:
        """Whether there is an unconditional branch."""
        return len(self.conds) == 2 and self.conds[1] is not None

    @property
    def progress(self) -> float:
        """The step of this sampler that it belongs to: 0 the first, 1 the last."""
        if self.sigmas is None:
            return 0.0
        begun = int((self.sigmas.double() >= self.sigma * (1 - 1e-6)).sum())
        return min(max(begun - 1, 0) / max(len(self.sigmas) - 2, 1), 1.0)

    @property
    def shape(self) -> torch.Size:
        """The shape of the latents."""
        return self._call[2].shape

    def run(self, conds: Sequence[Any], **transformer_options: Any) -> Branches:
        """Evaluate these conditionings and return their predictions; that of a missing one (None) means nothing.

        transformer_options: options for the denoiser in addition to those of the run.
        """
        executor, model, x, sigma, options, rest = self._call
        if transformer_options:
            options = {**options, "transformer_options": {**self.transformer_options, **transformer_options}}
        result: Branches = executor(model, list(conds), x, sigma, options, *rest)
        return result


@dataclass(frozen=True)
class Wrap:
    """A wrapper of ComfyUI's that carries out a fix, and the key under which a model holds it once."""

    kind: str
    """The kind of wrapper, such as "calc_cond_batch"."""
    key: str
    wrapper: Callable[..., Any]

    def attached(self, model: Any) -> Any:
        """Return a copy of `model` (a ComfyUI ModelPatcher) with this wrapper, in place of one with the same key."""
        model = model.clone()
        model.remove_wrappers_with_key(self.kind, self.key)
        model.add_wrapper_with_key(self.kind, self.key, self.wrapper)
        return model

    def add_to_run(self, model_options: dict[str, Any]) -> bool:
        """Add this wrapper to the options of one run; return whether it was added: one with the same key is kept."""
        from comfy.patcher_extension import add_wrapper_with_key, get_wrappers_with_key

        if get_wrappers_with_key(self.kind, self.key, model_options, is_model_options=True):
            return False
        add_wrapper_with_key(self.kind, self.key, self.wrapper, model_options, is_model_options=True)
        return True


def _answering(key: str, answer: Callable[[Evaluation], Branches]) -> Wrap:
    """Return the wrapper that lets `answer` make every evaluation."""

    def wrapper(executor: Any, inner: Any, conds: Any, x: Any, sigma: Any, options: Any, *rest: Any) -> Branches:
        if len(conds) > 2:
            raise ValueError(
                f"{key} knows guidance with two branches, and this guider has {len(conds)}: use a KSampler or"
                " CFGGuider."
            )
        return answer(Evaluation(executor, inner, conds, x, sigma, options, rest))

    return Wrap("calc_cond_batch", key, wrapper)


def wrap_of(model: Any, strategy: Any) -> Wrap:
    """Return what carries out `strategy` on `model` (a ComfyUI ModelPatcher); ValueError if it cannot act there."""
    for kind, make in _WRAPS.items():
        if isinstance(strategy, kind):
            return make(model, strategy)
    raise ValueError(f"{type(strategy).__name__} is nothing that a node can do to a model.")


def attach(model: Any, strategy: Any) -> Any:
    """Return a copy of `model` (a ComfyUI ModelPatcher) with `strategy`, in place of an earlier one of its kind.

    A setting that changes nothing returns `model` itself. ValueError if the strategy cannot act on this model.
    """
    wrap = wrap_of(model, strategy)
    return model if _does_nothing(strategy) else wrap.attached(model)


def _does_nothing(strategy: Any) -> bool:
    match strategy:
        case MotionAmplitude(amount=1) | ReferenceBias(gamma=0) | ConditionNoise(beta=0):
            return True
    return False


def _low_pass(model: Any, strategy: LowPass) -> Wrap:
    """Let the guided direction see a blurred image in the first steps (arXiv 2506.08456).

    With prediction v and images I and LP(I): v(I, nothing) + w (v(LP(I), prompt) - v(LP(I), nothing)). The sampler
    combines the two branches itself, so the conditional one becomes v(LP(I), prompt) - v(LP(I), nothing) +
    v(I, nothing), at the cost of one more evaluation in those steps.
    """
    place = image_place(model, "LowPass")
    first, last = strategy.interval  # type: ignore[misc]

    def blur(latents: Tensor, shown: Bool[Tensor, " f"]) -> Tensor:
        del shown
        return strategy.filtered(latents)

    def answer(evaluation: Evaluation) -> Branches:
        if not first <= evaluation.progress <= last or not strategy.strength:
            return evaluation.run(evaluation.conds)
        conditional, *others = evaluation.conds
        blurred = with_image(conditional, place, blur)
        if not evaluation.guided:
            return evaluation.run([blurred, *others])
        low, full = evaluation.run([blurred, others[0]])
        low_unconditional = evaluation.run([with_image(others[0], place, blur)])[0]
        return [low - low_unconditional + full, full]

    return _answering("unleak.low_pass", answer)


def _condition_noise(model: Any, strategy: ConditionNoise) -> Wrap:
    """Let the conditional branch see y + beta eps for the image's latents y."""
    place = image_place(model, "ConditionNoise")
    first, last = strategy.interval  # type: ignore[misc]

    def answer(evaluation: Evaluation) -> Branches:
        if not first <= evaluation.progress <= last or not strategy.beta:
            return evaluation.run(evaluation.conds)
        conditional, *others = evaluation.conds
        return evaluation.run([with_image(conditional, place, _noisy(place, strategy)), *others])

    return _answering("unleak.condition_noise", answer)


def _noisy(place: ImagePlace, strategy: ConditionNoise) -> Callable[[Tensor, Bool[Tensor, " f"]], Tensor]:
    """Return what adds the noise, the same in every frame that holds an image."""
    frames = 0 if place.frames_first else 2

    def add(latents: Tensor, shown: Bool[Tensor, " f"]) -> Tensor:
        shape = list(latents.shape)
        shape[frames] = 1
        generator = torch.Generator().manual_seed(strategy.seed)
        eps = torch.randn(shape, generator=generator).to(latents)
        where = [1] * latents.ndim
        where[frames] = -1
        return latents + strategy.beta * eps * shown.to(latents).view(where)

    return add


def _guidance_interval(model: Any, strategy: GuidanceInterval) -> Wrap:
    """Guide only at levels within (low, high] (arXiv 2404.07724).

    Elsewhere the conditional prediction stands for both branches, whatever the sampler's guidance, and the
    unconditional one is not evaluated.
    """
    low, high = strategy.limits(Sampling.of(model.get_model_object("model_sampling")).process)
    if low >= high:
        raise ValueError(f"guidance interval: low {strategy.low} is not below high {strategy.high} for this model.")

    def answer(evaluation: Evaluation) -> Branches:
        sampling = Sampling.of(evaluation.model_sampling)
        low, high = strategy.limits(sampling.process)
        noise = sampling.level(evaluation.sigma).flow_sigma
        if low < noise <= high * (1 + 1e-6) or not evaluation.guided:
            return evaluation.run(evaluation.conds)
        prediction = evaluation.run([evaluation.conds[0]])[0]
        return [prediction, prediction]

    return _answering("unleak.guidance_interval", answer)


def _motion_amplitude(model: Any, strategy: MotionAmplitude) -> Wrap:
    """Let the blank frames after the image differ more from it (PainterI2V).

    It acts once for a sampling run, on the whole video, before context windows cut it.
    """
    place = image_place(model, "MotionAmplitude")
    if not place.blank_frames:
        raise ValueError(
            f"MotionAmplitude cannot act on this model ({type(model.model).__name__}): it needs encoded blank frames"
            " after the image, as Wan has. unleak Compress works with any model, and so does unleak Motion."
        )

    def amplify(latents: Tensor, shown: Bool[Tensor, " f"]) -> Tensor:
        if not shown[0]:  # no image is given
            return latents
        keep = shown.to(latents.device).view(1, 1, -1, 1, 1)
        return torch.where(keep, latents, amplified(latents, strategy.amount))

    def wrapper(executor: Any, guider: Any, *args: Any, **kwargs: Any) -> Any:
        guider.conds = {name: with_image(entries, place, amplify) for name, entries in guider.conds.items()}
        return executor(guider, *args, **kwargs)

    return Wrap("sampler_sample", "unleak.motion_amplitude", wrapper)


def _reference_bias(model: Any, strategy: ReferenceBias) -> Wrap:
    """Let the conditional branch attend less to the photo in the first steps (DyMoS).

    Self-attention takes gamma from its logits for the tokens of the photo, those of the first frame.
    """
    patch = photo_tokens(model)

    def answer(evaluation: Evaluation) -> Branches:
        window = evaluation.transformer_options.get("context_window")
        away = window is not None and window.index_list[0] != 0  # a part that does not begin with the photo
        if not strategy.gamma or evaluation.progress > strategy.until or away:
            return evaluation.run(evaluation.conds)
        attention = BiasedAttention(
            strategy.gamma,
            patch.tokens(evaluation.shape),
            text=text_length(evaluation.conds[0]),
            earlier=evaluation.transformer_options.get("optimized_attention_override"),
        )
        predictions = evaluation.run(evaluation.conds, optimized_attention_override=attention)
        attention.check()
        return predictions

    return _answering("unleak.reference_bias", answer)


_WRAPS: Mapping[type, Callable[[Any, Any], Wrap]] = {
    LowPass: _low_pass,
    ConditionNoise: _condition_noise,
    GuidanceInterval: _guidance_interval,
    MotionAmplitude: _motion_amplitude,
    ReferenceBias: _reference_bias,
}
