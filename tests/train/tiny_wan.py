"""Wan with every part that training asks for, its text encoder too."""

from typing import Any

from diffusers import UniPCMultistepScheduler, WanImageToVideoPipeline, WanTransformer3DModel
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

from tests.tiny.model import seeded
from tests.tiny.text import T5_DIM, umt5, words
from tests.tiny.wan import _vae_5b
from tests.tiny.wan_vae import wan_vae

__all__ = ["tiny_wan"]


def _transformer(in_channels: int, **config: Any) -> WanTransformer3DModel:
    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=in_channels,
        text_dim=T5_DIM,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
        **{"out_channels": 16} | config,
    )


@seeded
def tiny_wan(version: str) -> WanImageToVideoPipeline:
    """2.1, 2.2 (two experts), or 5b (the image is the first frame)."""
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    parts: dict[str, Any] = {"tokenizer": words(max_length=512), "text_encoder": umt5(), "scheduler": scheduler}
    match version:
        case "2.1":
            vision = CLIPVisionConfig(
                hidden_size=4,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=16,
                image_size=4,
                patch_size=2,
            )
            parts |= {
                "vae": wan_vae(),
                "transformer": _transformer(36, image_dim=4, added_kv_proj_dim=24),
                "image_encoder": CLIPVisionModel(vision),
                "image_processor": CLIPImageProcessor(crop_size={"height": 4, "width": 4}, size={"shortest_edge": 4}),
            }
        case "2.2":
            parts |= {"vae": wan_vae(), "transformer": _transformer(36), "transformer_2": _transformer(36)}
            parts |= {"boundary_ratio": 0.9}
        case _:
            parts |= {"vae": _vae_5b(), "transformer": _transformer(48, out_channels=48), "expand_timesteps": True}
    return WanImageToVideoPipeline(**parts)
