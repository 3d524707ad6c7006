"""The parts of the nano pipeline that are not trained: its image encoder and its scheduler."""

import torch
from diffusers import EulerDiscreteScheduler
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

CONTEXT = 16


def image_encoder(*, seed: int = 0) -> CLIPVisionModelWithProjection:
    """Return a small CLIP vision network with fixed random weights: a summary of colour and layout, not of meaning."""
    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=CONTEXT,
        intermediate_size=2 * CONTEXT,
        num_hidden_layers=1,
        num_attention_heads=1,
        image_size=224,
        patch_size=56,
        projection_dim=CONTEXT,
    )
    return CLIPVisionModelWithProjection(config).eval()


def scheduler() -> EulerDiscreteScheduler:
    """Return Stable Video Diffusion's scheduler with its own settings."""
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        interpolation_type="linear",
        num_train_timesteps=1000,
        prediction_type="v_prediction",
        sigma_max=700.0,
        sigma_min=0.002,
        steps_offset=1,
        timestep_spacing="leading",
        timestep_type="continuous",
        use_karras_sigmas=True,
    )
