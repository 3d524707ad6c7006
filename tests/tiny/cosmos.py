"""Cosmos 1, 2, 2.5 (predict, transfer) and 3."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLCosmos,
    Cosmos2_5_PredictBasePipeline,
    Cosmos2_5_TransferPipeline,
    Cosmos2VideoToWorldPipeline,
    Cosmos3OmniPipeline,
    Cosmos3OmniTransformer,
    CosmosTransformer3DModel,
    CosmosVideoToWorldPipeline,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    ModelMixin,
    UniPCMultistepScheduler,
)
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import Tensor

from tests.tiny.model import Tiny, embeds, noise, photo, seeded
from tests.tiny.text import T5_DIM, t5, words
from tests.tiny.wan_vae import wan_vae

__all__ = ["TINY", "Unguarded"]

# As diffusers converts 2.5; a port of Cosmos 3 has the same with another sigma_min.
FLOW_UNIPC = {
    "use_karras_sigmas": True,
    "use_flow_sigmas": True,
    "prediction_type": "flow_prediction",
    "sigma_max": 200.0,
}
CHAT = "{% for message in messages %}{{ message['content'] if message['content'] is string else 'a dog' }}{% endfor %}"


class Unguarded(ModelMixin, ConfigMixin):
    """In the place of the guardrail, which is a model of its own to download: finds everything safe."""

    @register_to_config
    def __init__(self) -> None:
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    def check_text_safety(self, prompt: str) -> bool:
        return True

    def check_video_safety(self, frames: Any) -> Any:
        return frames


class Uncontrolled(ModelMixin, ConfigMixin):
    """In the place of the ControlNet, which needs torchvision: adds nothing."""

    @register_to_config
    def __init__(self) -> None:
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    def forward(self, **told: Any) -> tuple[list[Tensor]]:
        return ([self.nothing],)


def _transformer(channels: int, **config: Any) -> CosmosTransformer3DModel:
    return CosmosTransformer3DModel(
        in_channels=channels + 1,
        out_channels=channels,
        num_layers=1,
        concat_padding_mask=False,  # resizing the mask needs torchvision
        extra_pos_embed_type="learnable",
        num_attention_heads=2,
        attention_head_dim=16,
        mlp_ratio=1,
        text_embed_dim=T5_DIM,
        adaln_lora_dim=4,
        max_size=(4, 32, 32),
        **config,
    )


@seeded
def _build_cosmos1() -> CosmosVideoToWorldPipeline:
    vae = AutoencoderKLCosmos(
        latent_channels=4,
        encoder_block_out_channels=(4, 4, 4, 4),
        decode_block_out_channels=(4, 4, 4, 4),
        attention_resolutions=(8,),
        resolution=64,
        num_layers=1,
        spatial_compression_ratio=8,
        temporal_compression_ratio=8,
        latents_mean=torch.linspace(-0.2, 0.2, 4 * 4).tolist(),
        latents_std=torch.linspace(0.4, 0.6, 4 * 4).tolist(),
    )
    scheduler = EDMEulerScheduler(
        sigma_min=0.002, sigma_max=80, sigma_data=0.5, sigma_schedule="karras", final_sigmas_type="sigma_min"
    )
    return CosmosVideoToWorldPipeline(
        text_encoder=t5(),
        tokenizer=words(),
        transformer=_transformer(4),
        vae=vae,
        scheduler=scheduler,
        safety_checker=Unguarded(),
    )


@seeded
def _build_cosmos2() -> Cosmos2VideoToWorldPipeline:
    return Cosmos2VideoToWorldPipeline(
        text_encoder=t5(),
        tokenizer=words(),
        transformer=_transformer(16),
        vae=wan_vae(),
        scheduler=FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True),
        safety_checker=Unguarded(),
    )


def _call(pipe: Any, **changes: Any) -> Tensor:
    settings = {
        "image": photo(16, 32),
        "prompt": "a dog runs",
        "negative_prompt": "",
        "height": 16,
        "width": 32,
        "num_frames": 9,
        "num_inference_steps": 4,
        "max_sequence_length": 8,
        "generator": noise(),
        "output_type": "latent",
    }
    return pipe(**settings | changes).frames


def _told(clips: int = 1) -> dict[str, Any]:
    """What the text encoder of 2.5, a vision language model, might have said."""
    return {"prompt_embeds": embeds(clips, 8, T5_DIM), "negative_prompt_embeds": embeds(clips, 8, T5_DIM, seed=2)}


@seeded
def _build_predict() -> Cosmos2_5_PredictBasePipeline:
    return Cosmos2_5_PredictBasePipeline(
        text_encoder=t5(),
        tokenizer=words(),
        transformer=_transformer(16),
        vae=wan_vae(),
        scheduler=UniPCMultistepScheduler(sigma_min=0.01, **FLOW_UNIPC),
        safety_checker=Unguarded(),
    )


def _call_predict(pipe: Any, **changes: Any) -> Tensor:
    # An image would need torchvision; a video of one frame is the same condition.
    video = embeds(1, 3, 1, 16, 32).clamp(-1, 1)
    frame = {"image": None, "prompt": None, "negative_prompt": None, "video": video, "num_latent_conditional_frames": 1}
    return _call(pipe, **frame | _told() | changes)


@seeded
def _build_transfer() -> Cosmos2_5_TransferPipeline:
    return Cosmos2_5_TransferPipeline(
        text_encoder=t5(),
        tokenizer=words(),
        transformer=_transformer(
            16, controlnet_block_every_n=1, img_context_num_tokens=2, img_context_dim_in=8, img_context_dim_out=32
        ),
        vae=wan_vae(),
        scheduler=UniPCMultistepScheduler(sigma_min=0.01, **FLOW_UNIPC),
        controlnet=Uncontrolled(),
        safety_checker=Unguarded(),
    )


def _call_transfer(pipe: Any, **changes: Any) -> Tensor:
    # Two chunks, the second of which begins with the last frame of the first.
    settings = {
        "controls": [photo(16, 32, seed=seed) for seed in range(9)],
        "height": 16,
        "width": 32,
        "num_frames": 9,
        "num_frames_per_chunk": 5,
        "num_inference_steps": 4,
        "generator": noise(),
        "output_type": "latent",
    }
    return pipe(**_told() | settings | changes).frames


@seeded
def _build_cosmos3() -> Cosmos3OmniPipeline:
    tokenizer = words(max_length=64)
    tokenizer.chat_template = CHAT
    transformer = Cosmos3OmniTransformer(
        head_dim=6,
        hidden_size=6,
        intermediate_size=12,
        latent_channel=16,
        latent_patch_size=1,
        num_attention_heads=1,
        num_hidden_layers=1,
        num_key_value_heads=1,
        patch_latent_dim=16,
        rope_axes_dim=[1, 1, 1],
        vocab_size=8,
    )
    return Cosmos3OmniPipeline(
        transformer=transformer,
        text_tokenizer=tokenizer,
        vae=wan_vae(),
        scheduler=UniPCMultistepScheduler(sigma_min=0.147, **FLOW_UNIPC),
        enable_safety_checker=False,
    )


def _call_cosmos3(pipe: Any, **changes: Any) -> Tensor:
    settings = {
        "prompt": "a dog runs",
        "image": photo(16, 32),
        "use_system_prompt": False,
        "height": 16,
        "width": 32,
        "num_frames": 9,
        "num_inference_steps": 4,
        "generator": noise(),
        "output_type": "latent",
    }
    return pipe(**settings | changes).video


def _pair() -> dict[str, Any]:
    images = [photo(16, 32), photo(16, 32, seed=6)]
    return {"image": images, "prompt": ["a dog runs", "a dog"], "negative_prompt": ["", ""]}


TINY = [
    Tiny("cosmos1", _build_cosmos1, _call, pair=_pair),
    Tiny("cosmos2", _build_cosmos2, _call, pair=_pair),
    Tiny("cosmos2.5-predict", _build_predict, _call_predict),
    Tiny("cosmos2.5-transfer", _build_transfer, _call_transfer, pair=lambda: _told(2)),
    Tiny("cosmos3", _build_cosmos3, _call_cosmos3),
]
