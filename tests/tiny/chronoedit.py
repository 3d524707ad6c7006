"""ChronoEdit: a Wan 2.1 that edits an image by making a video of it."""

from typing import Any

from diffusers import ChronoEditPipeline, ChronoEditTransformer3DModel, UniPCMultistepScheduler
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

from tests.tiny.model import Tiny, embeds, noise, photo, seeded
from tests.tiny.text import T5_DIM, umt5, words
from tests.tiny.wan_vae import wan_vae

__all__ = ["TINY"]


@seeded
def _build_chronoedit() -> ChronoEditPipeline:
    vision = CLIPVisionConfig(
        hidden_size=4, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, image_size=4, patch_size=2
    )
    transformer = ChronoEditTransformer3DModel(
        in_channels=36,
        out_channels=16,
        num_attention_heads=2,
        attention_head_dim=12,
        text_dim=T5_DIM,
        image_dim=4,
        freq_dim=16,
        ffn_dim=16,
        num_layers=2,
        rope_max_seq_len=32,
    )
    return ChronoEditPipeline(
        tokenizer=words(),
        text_encoder=umt5(),
        image_encoder=CLIPVisionModel(vision),
        image_processor=CLIPImageProcessor(crop_size={"height": 4, "width": 4}, size={"shortest_edge": 4}),
        transformer=transformer,
        vae=wan_vae(),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0),
    )


def _call_chronoedit(pipe: Any, **changes: Any) -> Tensor:
    settings = {
        "image": photo(16, 32),
        # Reading a prompt needs ftfy.
        "prompt_embeds": embeds(1, 8, T5_DIM),
        "negative_prompt_embeds": embeds(1, 8, T5_DIM, seed=2),
        "height": 16,
        "width": 32,
        "num_frames": 5,
        "num_inference_steps": 4,
        "generator": noise(),
        "output_type": "latent",
    }
    return pipe(**settings | changes).frames


def _pair() -> dict[str, Any]:
    return {"prompt_embeds": embeds(2, 8, T5_DIM), "negative_prompt_embeds": embeds(2, 8, T5_DIM, seed=2)}


TINY = [Tiny("chronoedit", _build_chronoedit, _call_chronoedit, pair=_pair)]
