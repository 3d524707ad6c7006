"""DynamiCrafter and VideoCrafter1."""

from typing import Any

from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.tiny.model import Tiny, noise, photo, seeded
from tests.tiny.text import CLIP_DIM, clip, words
from unleak.families.dynamicrafter.pipeline import DynamiCrafterPipeline
from unleak.families.lvdm.resampler import Resampler
from unleak.families.lvdm.scheduler import LVDMScheduler
from unleak.families.lvdm.unet import LVDMUNet
from unleak.families.videocrafter1.pipeline import VideoCrafter1Pipeline
from unleak.families.videocrafter1.projection import LinearProjection

__all__ = ["TINY", "build_dynamicrafter", "build_videocrafter1"]

FRAMES, VISION = 4, 8


def _shared() -> dict[str, Any]:
    vision = CLIPVisionConfig(
        hidden_size=VISION,
        projection_dim=CLIP_DIM,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        intermediate_size=16,
        patch_size=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=2,
        force_upcast=False,
    )
    return {
        "vae": vae,
        "text_encoder": clip(),
        "tokenizer": words(),
        "image_encoder": CLIPVisionModelWithProjection(vision),
        "feature_extractor": CLIPImageProcessor(crop_size=16, size=16),
        "sample_height": 16,
        "sample_width": 24,
    }


def _unet(**config: Any) -> LVDMUNet:
    small = {"model_channels": 32, "channel_mult": (1, 2), "num_res_blocks": 1, "attention_resolutions": (1,)}
    small |= {"attention_head_dim": 16, "cross_attention_dim": CLIP_DIM, "text_tokens": 8, "image_tokens": 2}
    return LVDMUNet(**small | {"temporal_length": FRAMES} | config)


def _resampler(**config: Any) -> Resampler:
    small = {"dim": 8, "depth": 1, "head_dim": 4, "heads": 2, "num_queries": 2}
    return Resampler(**small, embedding_dim=VISION, output_dim=CLIP_DIM, ff_mult=2, **config)


@seeded
def build_dynamicrafter(**config: Any) -> DynamiCrafterPipeline:
    parts = {"unet": _unet(), "image_projection": _resampler(video_length=FRAMES), "scheduler": LVDMScheduler()}
    return DynamiCrafterPipeline(**_shared() | parts | config)


@seeded
def build_videocrafter1(*, linear: bool = False, **scheduler: Any) -> VideoCrafter1Pipeline:
    projection = LinearProjection(CLIP_DIM, CLIP_DIM, num_tokens=2) if linear else _resampler()
    settings = {
        "prediction_type": "epsilon",
        "rescale_betas_zero_snr": False,
        "timestep_spacing": "uniform",
        "set_scale_to_one": True,
    }
    return VideoCrafter1Pipeline(
        **_shared(),
        unet=_unet(in_channels=4, image_tokens_per_frame=False, default_fps=16),
        image_projection=projection,
        scheduler=LVDMScheduler(**settings | scheduler),
    )


def call(pipe: Any, **changes: Any) -> Tensor:
    settings = {
        "image": photo(16, 24),
        "prompt": "a dog runs",
        "num_inference_steps": 4,
        "generator": noise(),
        "output_type": "latent",
    }
    return pipe(**settings | changes).frames


def _pair() -> dict[str, Any]:
    return {"image": [photo(16, 24), photo(16, 24, seed=6)], "prompt": ["a dog runs", "a dog"]}


TINY = [
    Tiny("dynamicrafter", build_dynamicrafter, call, denoiser="unet", pair=_pair),
    Tiny("videocrafter1", build_videocrafter1, call, denoiser="unet", pair=_pair),
]
