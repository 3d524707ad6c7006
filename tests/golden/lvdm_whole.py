"""Whole calls of the reference, from pixels and token ids to a video: every component, eight DDIM steps."""

from typing import Any

import torch
from diffusers import AutoencoderKL
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from tests.golden.case import Case
from tests.golden.lvdm_networks import NETWORK, filled
from tests.golden.lvdm_sampling import pipeline_of, replayed
from unleak.families.dynamicrafter.pipeline import DynamiCrafterPipeline
from unleak.families.lvdm.original import (
    image_encoder_config,
    resampler_config,
    scheduler_config,
    text_encoder_config,
    unet_config,
    vae_config,
)
from unleak.families.lvdm.resampler import Resampler
from unleak.families.lvdm.scheduler import LVDMScheduler
from unleak.families.lvdm.unet import LVDMUNet
from unleak.families.videocrafter1.pipeline import VideoCrafter1Pipeline


def whole_pipeline(case: Case, cls: type) -> Any:
    """A pipeline of the recorded configuration and weights, without a tokenizer."""
    config = case.config
    vision = CLIPVisionConfig(**image_encoder_config(config["arch"]))
    parts = {
        "unet": LVDMUNet(**unet_config(config["unet_config"])),
        "image_projection": Resampler(**resampler_config(config["image_proj_config"])),
        "vae": AutoencoderKL(**vae_config(config["vae_config"], scaling_factor=config["scale_factor"])),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**text_encoder_config(config["arch"]))),
        "image_encoder": CLIPVisionModelWithProjection(vision),
    }
    weights = case.weights()
    for file in config["other_weights"]:
        weights = case.weights(file) | weights
    filled(weights, **parts)
    return pipeline_of(
        cls,
        **parts,
        feature_extractor=CLIPImageProcessor(),
        scheduler=LVDMScheduler(**scheduler_config(config["process"])),
        condition_on=config["condition_on"],
    )


@torch.no_grad()
def run_whole(case: Case) -> None:
    config, dynamicrafter = case.config, case.name.startswith("dynamicrafter")
    pipe = whole_pipeline(case, DynamiCrafterPipeline if dynamicrafter else VideoCrafter1Pipeline)
    text = pipe.text_encoder(case["in.ids"])[0]
    case.compare("text", text, share=NETWORK)
    image = case["in.image"]
    features = pipe.encode_image(torch.cat([image, torch.zeros_like(image)]))
    case.compare("image_features", features, share=NETWORK)
    case.compare("image_tokens", pipe.project_image(features, config["frames"]), share=NETWORK)
    height, width = image.shape[-2:]
    told = {config["condition_on"]: config["fs"] if dynamicrafter else config["fps"]}
    for run, info in config["runs"].items():
        start, *noises = case[f"in.{run}.noise"]
        draws = [start, *([case[f"in.{run}.vae_noise"]] if dynamicrafter else [])]
        with replayed(draws, noises if info["eta"] else ()) as seen:
            latents = pipe(
                (image + 1) / 2,
                prompt_embeds=text[:1],
                negative_prompt_embeds=text[1:],
                height=height,
                width=width,
                num_frames=config["frames"],
                num_inference_steps=config["steps"],
                guidance_scale=config["guidance"],
                eta=info["eta"],
                output_type="latent",
                **told,
            ).frames
        clean = torch.stack(seen["clean"])
        if dynamicrafter:  # its sampler keeps the rescale of the next level on what it predicts
            clean = clean * torch.tensor([step.scale_next for _, step in seen["steps"]]).view(-1, 1, 1, 1, 1, 1)
        case.compare(f"{run}.pred_x0", clean)
        case.compare(f"{run}.latents", latents)
        case.compare(f"{run}.video", pipe.decode_latents(latents))


CASES = {"dynamicrafter_whole": run_whole, "videocrafter_whole": run_whole}
