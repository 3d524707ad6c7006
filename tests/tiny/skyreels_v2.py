"""SkyReels V2: image to video, and diffusion forcing (one schedule per latent frame)."""

from typing import Any

from diffusers import (
    SkyReelsV2DiffusionForcingImageToVideoPipeline,
    SkyReelsV2ImageToVideoPipeline,
    SkyReelsV2Transformer3DModel,
    UniPCMultistepScheduler,
)
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.tiny.model import Tiny, photo, seeded
from tests.tiny.wan import small_call
from tests.tiny.wan_vae import wan_vae

__all__ = ["TINY"]


def _scheduler() -> UniPCMultistepScheduler:
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0)


def _transformer(**config: Any) -> SkyReelsV2Transformer3DModel:
    return SkyReelsV2Transformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        text_dim=32,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
        **config,
    )


@seeded
def _image_to_video() -> SkyReelsV2ImageToVideoPipeline:
    config = CLIPVisionConfig(
        hidden_size=4,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=4,
        patch_size=2,
        projection_dim=4,
    )
    return SkyReelsV2ImageToVideoPipeline(
        tokenizer=None,
        text_encoder=None,
        image_encoder=CLIPVisionModelWithProjection(config),
        image_processor=CLIPImageProcessor(crop_size={"height": 4, "width": 4}, size={"shortest_edge": 4}),
        transformer=_transformer(in_channels=36, image_dim=4, added_kv_proj_dim=24),
        vae=wan_vae(),
        scheduler=_scheduler(),
    )


@seeded
def _diffusion_forcing() -> SkyReelsV2DiffusionForcingImageToVideoPipeline:
    return SkyReelsV2DiffusionForcingImageToVideoPipeline(
        tokenizer=None,
        text_encoder=None,
        transformer=_transformer(in_channels=16, inject_sample_info=True),
        vae=wan_vae(),
        scheduler=_scheduler(),
    )


def _call(pipe: Any, **changes: Any) -> Tensor:
    return pipe(**small_call() | {"image": photo(32, 16), "output_type": "latent"} | changes).frames


TINY = [
    Tiny("skyreels-v2", _image_to_video, _call),
    Tiny("skyreels-v2-forcing", _diffusion_forcing, _call),
]
