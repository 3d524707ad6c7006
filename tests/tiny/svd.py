"""Stable Video Diffusion."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    StableVideoDiffusionPipeline,
    UNetSpatioTemporalConditionModel,
)
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

SETTINGS = json.loads((Path(__file__).parents[1] / "golden/cases/svd_pipeline.json").read_text())


@cache
def _svd_networks() -> dict[str, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNetSpatioTemporalConditionModel(**SETTINGS["unet_config"])
        vae = AutoencoderKLTemporalDecoder(**SETTINGS["vae_config"])
        image_encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**SETTINGS["clip_vision_config"]))
    networks = {"unet": unet, "vae": vae, "image_encoder": image_encoder}
    return {name: network.eval().requires_grad_(False) for name, network in networks.items()}


def tiny_svd() -> StableVideoDiffusionPipeline:
    """A fresh SVD pipeline, sigma 0.002 to 700, whose networks all callers share: change no weight."""
    scheduler = EulerDiscreteScheduler.from_config(SETTINGS["scheduler_config"] | {"sigma_max": 700.0})
    pipe = StableVideoDiffusionPipeline(
        **_svd_networks(), scheduler=scheduler, feature_extractor=CLIPImageProcessor.from_dict({})
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
