"""VideoCrafter1 (Chen et al. 2023), and the paper's fine-tunes of it."""

from dataclasses import replace

from unleak.families.spec import File, ModelSpec

_MOMENTS = "GraceZhao/VideoCrafter-Analytic-Init:initial_noise_{}.pt"

_ROW = ModelSpec(
    name="videocrafter1-512",
    source="VideoCrafter/Image2Video-512",
    pipeline="VideoCrafter1Pipeline",
    family="videocrafter1",
    summary="VideoCrafter1, 16 frames of 512x320 from a photo and a prompt",
    licence="research and non-commercial, by its README",
    terms="non-commercial",
    defaults={
        "height": 320,
        "width": 512,
        "num_frames": 16,
        "num_inference_steps": 50,
        "guidance_scale": 12.0,
        "eta": 1.0,
        "fps": 24,
    },
    fps=8,
    size_multiple=64,
    scheduler={
        "_class_name": "LVDMScheduler",
        "prediction_type": "epsilon",
        "rescale_betas_zero_snr": False,
        "timestep_spacing": "uniform",
        "base_scale": 0.7,
        "set_scale_to_one": True,
    },
    dtype="float16",
    start="940",
    init="analytic",
    why="the paper's released script: M = 940 with Analytic-Init",
    moments=_MOMENTS.format(512),
    moments_at={"1024x576": _MOMENTS.format(1024)},
    files=(File("model.ckpt"),),
    convert="videocrafter1",
    unverified=("revision", "hash"),
)
_TUNED = replace(
    _ROW,
    licence="not stated; tuned from weights under a research licence",
    terms="a derivative of VideoCrafter1: non-commercial",
    unverified=("revision", "hash", "file name", "licence"),
)

ROWS = (
    _ROW,
    replace(
        _TUNED,
        name="videocrafter1-512-cil",
        source="GraceZhao/VideoCrafter1-CIL-512",
        summary="the paper's VideoCrafter1, trained with TimeNoise: 16 frames of 512x320",
        why="the paper: M = 940 with Analytic-Init helps after TimeNoise too",
    ),
    replace(
        _TUNED,
        name="videocrafter1-512-naive",
        source="GraceZhao/VideoCrafter1-naive-finetune",
        summary="the paper's baseline: VideoCrafter1 fine-tuned without TimeNoise, 16 frames of 512x320",
    ),
)
