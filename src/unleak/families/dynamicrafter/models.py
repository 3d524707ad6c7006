"""DynamiCrafter (Xing et al. 2023), and the paper's fine-tunes of it."""

from dataclasses import replace

from unleak.families.spec import File, ModelSpec

_MOMENTS = "GraceZhao/DynamiCrafter-Analytic-Init:initial_noise_{}.pt"
_SCRIPT = "the paper's released script"

_ROW = ModelSpec(
    name="dynamicrafter-512",
    source="Doubiiu/DynamiCrafter_512",
    pipeline="DynamiCrafterPipeline",
    family="dynamicrafter",
    summary="DynamiCrafter, 16 frames of 512x320 from a photo and a prompt",
    licence="that of its authors, on the Hub (terms not verified)",
    terms="read it before any use other than research",
    defaults={
        "height": 320,
        "width": 512,
        "num_frames": 16,
        "num_inference_steps": 50,
        "guidance_scale": 7.5,
        "guidance_rescale": 0.7,
        "eta": 1.0,
        "fps": 24,
    },
    fps=8,
    size_multiple=64,
    scheduler={"_class_name": "LVDMScheduler", "base_scale": 0.7},
    dtype="float16",
    start="940",
    init="analytic",
    why=f"{_SCRIPT}: M = 940 with Analytic-Init",
    moments=_MOMENTS.format(512),
    moments_at={"1024x576": _MOMENTS.format(1024)},
    files=(File("model.ckpt"),),
    convert="dynamicrafter",
    unverified=("revision", "hash", "licence"),
)
_CIL = replace(
    _ROW,
    start="1000",
    why=f"{_SCRIPT} for this checkpoint: M = 1000 with Analytic-Init; lower M adds little after TimeNoise",
    licence="apache-2.0 by its tag, on weights of DynamiCrafter",
    terms="a derivative of DynamiCrafter: its licence holds too",
    files=(File("timenoise.ckpt"),),
)
_1024 = {"height": 576, "width": 1024}

ROWS = (
    _ROW,
    replace(
        _ROW,
        name="dynamicrafter-1024",
        source="Doubiiu/DynamiCrafter_1024",
        summary="DynamiCrafter, 16 frames of 1024x576",
        defaults={**_ROW.defaults, **_1024},
        scheduler={"_class_name": "LVDMScheduler", "base_scale": 0.3},
        moments=_MOMENTS.format(1024),
        moments_at={"512x320": _MOMENTS.format(512)},
        why=f"{_SCRIPT} for 512x320, carried over to this size",
    ),
    replace(
        _ROW,
        name="dynamicrafter-256",
        source="Doubiiu/DynamiCrafter",
        summary="DynamiCrafter, 16 frames of 256x256",
        defaults={
            **{name: value for name, value in _ROW.defaults.items() if name not in ("fps", "guidance_rescale")},
            "height": 256,
            "width": 256,
            "frame_stride": 3,
        },
        scheduler={
            "_class_name": "LVDMScheduler",
            "prediction_type": "epsilon",
            "rescale_betas_zero_snr": False,
            "timestep_spacing": "uniform",
            "base_scale": None,
        },
        moments=None,
        moments_at={},
        init="standard",
        why="the paper's M for open images (0.92T to 0.96T); moments at 256x256 are not known to exist",
    ),
    replace(
        _ROW,
        name="dynamicrafter-512-interp",
        source="Doubiiu/DynamiCrafter_512_Interp",
        summary="DynamiCrafter between two photos, and in loops: 16 frames of 512x320",
        init="standard",
        why=f"{_SCRIPT} for 512x320, carried over",
    ),
    replace(
        _CIL,
        name="dynamicrafter-512-cil",
        source="GraceZhao/DynamiCrafter-CIL-512",
        summary="the paper's DynamiCrafter, trained with TimeNoise: 16 frames of 512x320",
    ),
    replace(
        _CIL,
        name="dynamicrafter-512-cil-no-watermark",
        source="GraceZhao/DynamiCrafter-CIL-512-no-watermark",
        summary="the same, trained on videos without watermark: 16 frames of 512x320",
        unverified=(*_CIL.unverified, "file name"),
    ),
    replace(
        _CIL,
        name="dynamicrafter-1024-cil",
        source="GraceZhao/DynamiCrafter-CIL-1024",
        summary="the paper's DynamiCrafter, trained with TimeNoise: 16 frames of 1024x576",
        defaults={**_CIL.defaults, **_1024},
        scheduler={"_class_name": "LVDMScheduler", "base_scale": 0.3},
        moments=_MOMENTS.format(1024),
        moments_at={"512x320": _MOMENTS.format(512)},
        unverified=(*_CIL.unverified, "file name"),
    ),
    replace(
        _CIL,
        name="dynamicrafter-512-naive",
        source="GraceZhao/DynamiCrafter-naive-finetune",
        summary="the paper's baseline: DynamiCrafter fine-tuned without TimeNoise, 16 frames of 512x320",
        start="940",
        why=f"{_SCRIPT} for the model that it was tuned from",
        unverified=(*_CIL.unverified, "file name"),
    ),
)
