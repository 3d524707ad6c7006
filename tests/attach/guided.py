"""Guided calls of the tiny pipelines, and every evaluation that they make."""

from typing import Any

import torch
from torch import Tensor

from tests.attach.watch import all_tiny
from tests.tiny.model import embeds
from tests.tiny.text import T5_DIM

__all__ = ["ALL", "BATCHED", "GUIDED", "GUIDING", "NO_PHOTO", "UNGUIDED", "Run", "W", "same_seed"]

ALL = {tiny.name: tiny for tiny in all_tiny()}
W = 3.0
GUIDED: dict[str, dict[str, Any]] = {
    "svd": {"min_guidance_scale": W, "max_guidance_scale": W},
    "pia": {"guidance_scale": W},
    "dynamicrafter": {"guidance_scale": W, "guidance_rescale": 0.0},
    "i2vgen-xl": {"guidance_scale": W},
    "cogvideox-ddim": {"guidance_scale": W},
    "consisid": {"guidance_scale": W},
    "sana-video": {"guidance_scale": W},
    "wan21": {"guidance_scale": W},
    "wan22": {"guidance_scale": W, "guidance_scale_2": W},
    "wan22-5b": {"guidance_scale": W},
    "chronoedit": {"guidance_scale": W},
    "skyreels-v2": {"guidance_scale": W},
    "hunyuan-concat": {"true_cfg_scale": W},
    "hunyuan-replace": {"true_cfg_scale": W},
    "hunyuan-skyreels": {"true_cfg_scale": W},
    "hunyuan15": {},
}
UNGUIDED: dict[str, dict[str, Any]] = {
    "ltx": {"negative_prompt_embeds": embeds(1, 4, T5_DIM)},
    "ltx-condition": {"negative_prompt_embeds": embeds(1, 4, T5_DIM)},
    "kandinsky5": {"negative_prompt_embeds_qwen": embeds(1, 4, 16), "negative_prompt_embeds_clip": embeds(1, 8)},
    "cosmos1": {"negative_prompt": "a dog runs"},
    "cosmos2": {"negative_prompt": "a dog runs"},
    "cosmos2.5-predict": {"negative_prompt_embeds": embeds(1, 8, T5_DIM)},
    "cosmos2.5-transfer": {"negative_prompt_embeds": embeds(1, 8, T5_DIM)},
    "framepack": {"negative_prompt_embeds": embeds(1, 4, 16), "negative_pooled_prompt_embeds": embeds(1, 8)},
    "wan-vace": {"negative_prompt_embeds": embeds(1, 4, 32)},
    "wan-animate": {"guidance_scale": 1.0},  # its unconditional branch has another face too
    "lucy-edit": {"negative_prompt_embeds": embeds(1, 4, 32)},
    "cogvideox-control": {"negative_prompt": "a dog runs"},
    "sparsectrl": {"negative_prompt": "a dog runs"},
    "animatediff-control": {"negative_prompt": "a dog runs"},
    "animatediff": {"negative_prompt": "a dog runs"},
}
"""How others are called so that the guided prediction is the conditional one: mostly, told the same twice."""
GUIDING: dict[str, dict[str, Any]] = {
    "wan-animate": {"guidance_scale": W, "negative_prompt_embeds": embeds(1, 4, 32, seed=2)},
    "cosmos1": {"augment_sigma": 0.0},  # else each branch noises the image anew
}
NO_PHOTO = {
    "sparsectrl",
    "animatediff",
    "animatediff-control",
    "cogvideox-control",
    "wan-vace",
    "lucy-edit",
    "anyflow",
    "anyflow-far",
}
NO_PHOTO |= {"easyanimate-inpaint", "cosmos2.5-transfer", "cosmos2.5-predict"}
"""Called without a photo here: with a video, or with control frames."""
BATCHED = {"svd", "pia", "dynamicrafter", "i2vgen-xl", "cogvideox-ddim", "consisid", "sana-video"}


class Run:
    """Every evaluation of the network itself, below whatever is attached, and what the scheduler is given."""

    def __init__(self, name: str, pipe: Any, **changes: Any) -> None:
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
        self.outputs: list[Tensor] = []
        self.steps: list[Tensor] = []
        networks = [getattr(pipe, part, None) for part in ("unet", "transformer", "transformer_2")]
        networks = [network for network in networks if network is not None]
        for network in networks:
            self._record(network)
        cls = type(pipe.scheduler)
        step = cls.step
        cls.step = lambda scheduler, output, *args, **kwargs: (
            self.steps.append(output.clone()) or step(scheduler, output, *args, **kwargs)
        )
        if name == "hunyuan15":
            pipe.guider.guidance_scale = W
        try:
            torch.manual_seed(0)
            self.result = ALL[name].call(pipe, **GUIDED[name] | changes)
        finally:
            cls.step = step
            for network in networks:
                assert network.forward.__name__ == "recorded"  # an attachment inside has been taken off again
                del network.forward

    def _record(self, network: Any) -> None:
        plain = network.forward

        def recorded(*args: Any, **kwargs: Any) -> Any:
            kept = {key: value.clone() if isinstance(value, Tensor) else value for key, value in kwargs.items()}
            self.calls.append((plain, tuple(a.clone() if isinstance(a, Tensor) else a for a in args), kept))
            output = plain(*args, **kwargs)
            self.outputs.append((output[0] if isinstance(output, tuple) else output.sample).clone())
            return output

        network.forward = recorded

    def input(self, call: int) -> Tensor:
        _, args, kwargs = self.calls[call]
        names = ("image_latents", "hidden_states", "sample")
        return next((kwargs[name] for name in names if name in kwargs), args[0] if args else None)

    def again(self, call: int, latents: Tensor) -> Tensor:
        forward, args, kwargs = self.calls[call]
        name = next((name for name in ("image_latents", "hidden_states", "sample") if name in kwargs), None)
        output = forward(*args, **kwargs | {name: latents}) if name else forward(latents, *args[1:], **kwargs)
        return output[0] if isinstance(output, tuple) else output.sample


def same_seed(name: str, pipe: Any, **changes: Any) -> list[Tensor]:
    torch.manual_seed(0)
    result = ALL[name].call(pipe, **changes)
    return result if isinstance(result, list) else [result]
