"""Stable Video Diffusion, and the paper's fine-tunes of it."""

from dataclasses import replace

from unleak.families.spec import File, ModelSpec

PAPER = "the paper (sigma 100 for SVD)"
_MOMENTS = "GraceZhao/SVD-Analytic-init:initial_noise_{}.pt"

SVD = ModelSpec(
    name="svd",
    source="stabilityai/stable-video-diffusion-img2vid",
    pipeline="StableVideoDiffusionPipeline",
    family="svd",
    revision="9cf024d5bfa8f56622af86c884f26a52f6676f2e",
    summary="Stable Video Diffusion, 14 frames of 1024x576",
    licence="Stability AI non-commercial / community licence: accept it on the Hub",
    terms="non-commercial, or under the community licence below its revenue limit",
    defaults={"height": 576, "width": 1024, "num_frames": 14, "decode_chunk_size": 8},
    size_multiple=64,
    memory_gb=12,
    scheduler={
        "_class_name": "EulerDiscreteScheduler",
        "use_karras_sigmas": True,
        "prediction_type": "v_prediction",
        "timestep_type": "continuous",
        "timestep_spacing": "leading",
        "sigma_min": 0.002,
        "sigma_max": 700.0,
    },
    dtype="float16",
    start="sigma=100",
    why=PAPER,
    moments=_MOMENTS.format(1024),
    moments_at={"512x320": _MOMENTS.format(512)},
    variant="fp16",
)

_TUNED = replace(
    SVD,
    revision=None,
    variant=None,
    licence="apache-2.0 by its tag, on weights of Stability AI",
    terms="a derivative of Stability AI's weights: their licence holds too",
    defaults={
        "height": 320,
        "width": 512,
        "num_frames": 16,
        "fps": 5,
        "motion_bucket_id": 20,
        "noise_aug_strength": 0.002,
        "decode_chunk_size": 8,
    },
    why="the paper's released script for its SVD fine-tune",
    init="analytic",
    moments=_MOMENTS.format(512),
    moments_at={"1024x576": _MOMENTS.format(1024)},
    files=(File("checkpoint-step-20000.ckpt"),),
    convert="svd",
    part="unet",
    base="svd",
    unverified=("revision", "hash", "licence"),
)

ROWS = (
    SVD,
    replace(
        SVD,
        name="svd-xt",
        source="stabilityai/stable-video-diffusion-img2vid-xt",
        revision="9e43909513c6714f1bc78bcb44d96e733cd242aa",
        summary="Stable Video Diffusion XT, 25 frames of 1024x576",
        defaults={**SVD.defaults, "num_frames": 25},
        memory_gb=16,
    ),
    replace(
        _TUNED,
        name="svd-512-cil",
        source="GraceZhao/SVD-CIL-512",
        summary="the paper's SVD, trained with TimeNoise: 16 frames of 512x320",
    ),
    replace(
        _TUNED,
        name="svd-512-naive",
        source="GraceZhao/SVD-naive-finetune",
        summary="the paper's baseline: SVD fine-tuned without TimeNoise, 16 frames of 512x320",
        unverified=(*_TUNED.unverified, "file name"),
    ),
    replace(
        _TUNED,
        name="svd-512-cil-no-watermark",
        source="zhuhz22/SVD-CIL-watermark-free",
        summary="SVD trained with TimeNoise on videos without watermark: 16 frames of 512x320",
        unverified=(*_TUNED.unverified, "file name"),
    ),
)
