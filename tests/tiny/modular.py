"""Modular pipelines: Wan 2.1 and 2.2, HunyuanVideo 1.5 and LTX, of the components of the ordinary tiny ones."""

from typing import Any

from diffusers import (
    ClassifierFreeGuidance,
    HunyuanVideo15AutoBlocks,
    LTXAutoBlocks,
    Wan22Image2VideoBlocks,
    WanImage2VideoAutoBlocks,
)
from torch import Tensor

from tests.tiny import hunyuan, ltx, wan
from tests.tiny.model import Tiny, embeds, noise, photo
from tests.tiny.text import T5_DIM

__all__ = ["MODULAR"]


def _built(blocks: Any, among: list[Tiny], name: str, **more: Any) -> Any:
    """The modular pipeline of `blocks` without its text encoder, with the components of an ordinary pipeline."""
    tiny = next(tiny for tiny in among if tiny.name == name)
    blocks.sub_blocks.pop("text_encoder")
    pipe, parts = blocks.init_pipeline(), tiny.build().components
    names = set(pipe.component_names)
    pipe.update_components(**{name: part for name, part in parts.items() if name in names and part} | more)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _wan21() -> Any:
    return _built(WanImage2VideoAutoBlocks(), wan.TINY, "wan21", guider=ClassifierFreeGuidance(guidance_scale=3.0))


def _wan22() -> Any:
    guiders = {name: ClassifierFreeGuidance(guidance_scale=3.0) for name in ("guider", "guider_2")}
    return _built(Wan22Image2VideoBlocks(), wan.TINY, "wan22", boundary_ratio=0.9, **guiders)


def _hunyuan15() -> Any:
    return _built(
        HunyuanVideo15AutoBlocks(), hunyuan.TINY, "hunyuan15", guider=ClassifierFreeGuidance(guidance_scale=3.0)
    )


def _ltx() -> Any:
    return _built(LTXAutoBlocks(), ltx.TINY, "ltx", guider=ClassifierFreeGuidance(guidance_scale=3.0))


def _call_wan(pipe: Any, **changes: Any) -> Tensor:
    return pipe(**wan.small_call() | {"image": photo(32, 16)} | changes, output="latents")


def _call15(pipe: Any, **changes: Any) -> Tensor:
    masks = {name: embeds(1, 4).bool() | True for name in ("prompt_embeds_mask", "prompt_embeds_mask_2")}
    arguments = {
        "image": photo(32, 16),
        "prompt_embeds": embeds(1, 4, 16),
        "prompt_embeds_2": embeds(1, 4, 8),
        "negative_prompt_embeds": embeds(1, 4, 16, seed=2),
        "negative_prompt_embeds_2": embeds(1, 4, 8, seed=2),
        **masks,
        **{f"negative_{name}": mask for name, mask in masks.items()},
        "height": 16,
        "width": 16,
        "num_frames": 9,
        "num_inference_steps": 3,
        "generator": noise(),
    }
    return pipe(**arguments | changes, output="latents")


def _call_ltx(pipe: Any, **changes: Any) -> Tensor:
    mask = embeds(1, 4).bool() | True
    arguments = {
        "image": photo(64, 32),
        "prompt_embeds": embeds(1, 4, T5_DIM),
        "prompt_attention_mask": mask,
        "negative_prompt_embeds": embeds(1, 4, T5_DIM, seed=2),
        "negative_prompt_attention_mask": mask,
        "height": 64,
        "width": 32,
        "num_frames": 9,
        "num_inference_steps": 4,
        "generator": noise(),
    }
    return pipe(**arguments | changes, output="latents")


MODULAR = [
    Tiny("modular-wan21", _wan21, _call_wan),
    Tiny("modular-wan22", _wan22, _call_wan),
    Tiny("modular-hunyuan15", _hunyuan15, _call15),
    Tiny("modular-ltx", _ltx, _call_ltx),
]
"""Apart from `TINY`: these are called and watched in another way than ordinary pipelines."""
