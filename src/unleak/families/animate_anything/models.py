"""Animate-Anything (Dai et al. 2023)."""

from unleak.families.spec import ModelSpec

ROWS = (
    ModelSpec(
        name="animate-anything",
        source="https://cloudbook-public-production.oss-cn-shanghai.aliyuncs.com/animation/animate_anything_512_v1.02.tar",
        pipeline="AnimateAnythingPipeline",
        family="animate_anything",
        summary="Animate-Anything, 16 frames of 512x320 with an optional motion mask and a motion strength",
        licence="not stated for the weights",
        terms="ask its authors before any use other than research",
        defaults={
            "height": 320,
            "width": 512,
            "num_frames": 16,
            "num_inference_steps": 50,
            "guidance_scale": 9.0,
            "motion_strength": 5.0,
        },
        fps=8,
        size_multiple=64,
        scheduler={
            "_class_name": "DDIMScheduler",
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "timestep_spacing": "trailing",
            "clip_sample": False,
            "set_alpha_to_one": False,
            "steps_offset": 1,
        },
        dtype="float16",
        start="900",
        why="the paper's released script: M = 900",
        convert="animate_anything",
        unverified=("hash", "licence", "scheduler"),
    ),
)
