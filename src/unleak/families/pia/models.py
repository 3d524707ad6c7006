"""PIA (Zhang et al. 2023): motion modules with a condition input, on any Stable Diffusion 1.5."""

from dataclasses import replace

from unleak.families.spec import File, ModelSpec

_ROW = ModelSpec(
    name="pia",
    source="openmmlab/PIA-condition-adapter",
    pipeline="PIAPipeline",
    family="pia",
    summary="PIA on Stable Diffusion 1.5, 16 frames of 512x512 from a photo and a prompt",
    licence="apache-2.0 for the adapter (not verified), CreativeML Open RAIL-M for Stable Diffusion 1.5",
    terms="uses that Open RAIL-M rules out are ruled out",
    defaults={
        "height": 512,
        "width": 512,
        "num_frames": 16,
        "num_inference_steps": 25,
        "guidance_scale": 7.5,
        "motion_scale": 0,
    },
    fps=8,
    size_multiple=64,
    scheduler={
        "_class_name": "DDIMScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "linear",
        "clip_sample": False,
        "steps_offset": 1,
    },
    dtype="float16",
    why="the paper's M for open images, 0.92T to 0.96T",
    part="motion_adapter",
    base="stable-diffusion-v1-5",
    unverified=("revision", "hash", "licence"),
)

ROWS = (
    _ROW,
    replace(
        _ROW,
        name="pia-original",
        source="Leoxing/PIA",
        summary="the same from its authors' own checkpoint",
        files=(File("pia.ckpt"),),
        convert="pia",
    ),
)
BASES = (
    ModelSpec(
        name="stable-diffusion-v1-5",
        source="stable-diffusion-v1-5/stable-diffusion-v1-5",
        pipeline="StableDiffusionPipeline",
        family="pia",
        variant="fp16",
        dtype="float16",
        without=("safety_checker", "feature_extractor"),
        licence="CreativeML Open RAIL-M",
        terms="uses that the licence rules out are ruled out",
        unverified=("revision", "hash"),
    ),
)
"""What the rows above stand on, and what is no image-to-video model itself."""
