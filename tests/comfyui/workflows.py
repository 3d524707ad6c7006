"""Workflows of the tests: a tiny model, its conditioning and its latents, up to the sampler."""

from dataclasses import dataclass
from typing import Any

import torch

from tests.comfyui.engine.client import Graph

SEED = 5


@dataclass(frozen=True)
class Tiny:
    """A tiny model as ComfyUI loads it, and the latents that it makes."""

    file: str
    width: int
    pooled: int
    shape: tuple[int, ...]
    image: tuple[int, ...] | None
    """Latents of the image beside the noise, [c, f, h, w]."""
    shift: float = 1.0
    """Of the flow: sigma = s t / (1 + (s - 1) t)."""
    mask: str = ""
    """The noise mask, one number per frame."""


TINY = {
    "wan21": Tiny("wan21", 4096, 8, (1, 16, 3, 8, 8), (16, 3, 8, 8), 8.0),
    "wan22_high": Tiny("wan22_high", 4096, 8, (1, 16, 3, 8, 8), (16, 3, 8, 8), 8.0),
    "wan22_low": Tiny("wan22_low", 4096, 8, (1, 16, 3, 8, 8), (16, 3, 8, 8), 8.0),
    "wan22_5b": Tiny("wan22_5b", 4096, 8, (1, 48, 3, 4, 4), None, 8.0, "[0, 1, 1]"),
    "wan21_t2v": Tiny("wan21_t2v", 4096, 8, (1, 16, 3, 8, 8), None, 8.0),
    "ltxv": Tiny("ltxv", 32, 8, (1, 128, 3, 4, 4), None, 2.37, "[0, 1, 1]"),
    "hunyuan": Tiny("hunyuan", 32, 768, (1, 16, 3, 8, 8), (16, 3, 8, 8), 7.0),
    "hunyuan_v2": Tiny("hunyuan_v2", 32, 768, (1, 16, 3, 8, 8), None, 7.0, "[0, 1, 1]"),
}


def loaded(g: Graph, name: str) -> Any:
    return g("UNETLoader", unet_name=f"{TINY[name].file}.safetensors", weight_dtype="default")


def conditioned(
    g: Graph, name: str, *, shown: str = "[0]", batch: int = 1, shape: tuple[int, ...] | None = None
) -> tuple[Any, Any, Any]:
    """The positive and negative conditioning and the latents of a tiny model."""
    tiny = TINY[name]
    positive = g("TestText", width=tiny.width, pooled=tiny.pooled, seed=1, mask=name == "ltxv")[0]
    negative = g("TestText", width=tiny.width, pooled=tiny.pooled, seed=3, mask=name == "ltxv")[0]
    size = list(shape or tiny.shape)
    size[0] = batch
    if tiny.image is not None:
        image = [tiny.image[0], *size[2:]]
        both = g("TestImage", positive=positive, negative=negative, shape=str(image), shown=shown, seed=7)
        positive, negative = both[0], both[1]
    latent = g("TestLatent", shape=str(size), seed=9 if tiny.mask else 0, mask=tiny.mask)
    return positive, negative, latent


def sampled(g: Graph, model: Any, parts: tuple[Any, Any, Any], **changes: Any) -> Any:
    """A KSampler."""
    positive, negative, latent = parts
    settings = {"seed": SEED, "steps": 10, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    return g("KSampler", model=model, positive=positive, negative=negative, latent_image=latent, **settings | changes)


def noise(shape: tuple[int, ...], seed: int = SEED) -> torch.Tensor:
    """What ComfyUI draws for these latents."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
