"""Attaches a start to a ComfyUI model, for every sampler that samples it.

This takes two of ComfyUI's wrappers. OUTER_SAMPLE moves the sigmas, before the sampler passes them to the model.
SAMPLER_SAMPLE sets the noise, where every tensor is in the model's own space; it is added to the options of one run.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from unleak.comfyui.noise import initial_noise, parse_init
from unleak.comfyui.sampling import Mode, Sampling, moved
from unleak.comfyui.strategies import Wrap
from unleak.core.initial import AnalyticInit
from unleak.core.moments import LatentMoments
from unleak.core.start import Start

__all__ = ["Plan", "attach_start", "say"]

KEY = "unleak.start"


@dataclass(frozen=True)
class Plan:
    """Where to start, from which noise, and with which fixes: what a node attaches to a model."""

    start: Start
    mode: Mode = "rescale"
    init: str = "unit"
    moments: LatentMoments | None = None
    fixes: tuple[Wrap, ...] = ()
    """Fixes of a run beside the start; one whose kind the model already has is left out."""
    few: "Plan | None" = None
    """The plan that takes the place of this one where few steps keep to their own noise levels."""
    remark: str = ""
    """A remark for the user of a run that carries out this plan."""

    def is_full(self, sampling: Sampling) -> bool:
        """Return whether this is the full noise level; ValueError for a start outside the noise process."""
        if self.start.unit == "step":
            return self.start.steps_left_out == 0
        return self.start.resolve(sampling.process) == sampling.process.noisiest

    def check(self, model: Any) -> Sampling:
        """Return how `model` samples; ValueError if it cannot start there."""
        sampling = Sampling.of(model.get_model_object("model_sampling"))
        self.is_full(sampling)
        init = parse_init(self.init, self.moments, sampling)
        if isinstance(init, AnalyticInit):
            channels = model.get_model_object("latent_format").latent_channels
            init.fitted((channels, *init.moments.shape[1:]))
        return sampling


def attach_start(model: Any, plan: Plan) -> Any:
    """Return a copy of `model` (a ComfyUI ModelPatcher) that starts as `plan` says, in place of an earlier plan."""
    from comfy.patcher_extension import WrappersMP

    plan.check(model)
    model = model.clone()
    model.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, _outer_sample(plan))
    return model


def _outer_sample(plan: Plan) -> Callable[..., Any]:
    """Return the wrapper of a whole sampling run."""

    def wrapper(executor: Any, noise: Any, latent: Any, sampler: Any, sigmas: Any, *args: Any, **kwargs: Any) -> Any:
        from comfy.patcher_extension import WrappersMP, add_wrapper_with_key

        guider = executor.class_obj
        begins = len(sigmas) > 1 and sigmas[0] > sigmas[-1] and bool(torch.count_nonzero(noise))
        if not begins:  # it continues where another sampler stopped, or adds noise from step to step
            return executor(noise, latent, sampler, sigmas, *args, **kwargs)
        sampling = plan.check(guider.model_patcher)
        chosen = plan.few if plan.few is not None and sampling.distilled(sigmas) else plan
        if chosen.remark:
            say(chosen.remark)
        for fix in chosen.fixes:
            fix.add_to_run(guider.model_options)
        if chosen.is_full(sampling) and chosen.init != "analytic":
            return executor(noise, latent, sampler, sigmas, *args, **kwargs)
        result = moved(sigmas, chosen.start, chosen.mode, sampling)
        for remark in result.remarks:
            say(remark)
        wrap = _sampler_sample(chosen, sampling)
        add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, wrap, guider.model_options, is_model_options=True)
        return executor(noise, latent, sampler, result.sigmas, *args, **kwargs)

    return wrapper


def _sampler_sample(plan: Plan, sampling: Sampling) -> Callable[..., Any]:
    """Return the wrapper of the sampler itself, for one run."""

    def wrapper(
        executor: Any,
        guider: Any,
        sigmas: Any,
        extra_args: Any,
        callback: Any,
        noise: Any,
        latent: Any = None,
        mask: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        model = guider.inner_model
        if mask is None and latent is not None and torch.count_nonzero(latent):
            say("the sampler begins from a video, so its noise stays as it is; the start is applied")
        else:
            noise = initial_noise(
                noise,
                parse_init(plan.init, plan.moments, sampling),
                sampling,
                model_sampling=model.model_sampling,
                sigma=sigmas[0],
                full=executor.class_obj.max_denoise(guider, sigmas),
                latent=torch.zeros_like(noise) if latent is None else latent,
                mask=mask,
                frames_first="SVD_img2vid" in {base.__name__ for base in type(model).__mro__},
            )
        return executor(guider, sigmas, extra_args, callback, noise, latent, mask, *args, **kwargs)

    return wrapper


def say(remark: str) -> None:
    """Show a remark about a run in the console and, where ComfyUI can, on the node that runs."""
    logging.getLogger("unleak").warning("unleak: %s", remark)
    try:
        from comfy_execution.utils import get_executing_context
        from server import PromptServer
    except ImportError:
        return
    server: Any = getattr(PromptServer, "instance", None)
    context = get_executing_context()
    if context is not None and hasattr(server, "send_progress_text"):
        server.send_progress_text(f"unleak: {remark}", context.node_id)
