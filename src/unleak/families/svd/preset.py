"""Settings of Stable Video Diffusion that belong to the model, not to a task; every number with its source."""

from typing import Any

from unleak.attach.seams import SEAMS

__all__ = ["MOTION", "SAMPLING"]

MOTION = SEAMS["StableVideoDiffusionPipeline"].motion
"""`motion=` presets: medium is the start published with the paper, low and high are ours (see the seam)."""

SAMPLING: dict[str, Any] = {
    "num_inference_steps": 25,
    "min_guidance_scale": 1.0,
    "max_guidance_scale": 3.0,
    "motion_bucket_id": 20,
    "noise_aug_strength": 0.002,
}
"""How the paper (arXiv 2406.15735) samples SVD. diffusers' own defaults are motion bucket 127 and strength 0.02.

It asks for 16 frames, at 3 fps in 576x1024 and 5 fps in 320x512.
"""
