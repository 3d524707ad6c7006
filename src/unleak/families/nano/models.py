"""The model that is shipped with unleak."""

from dataclasses import replace
from pathlib import Path

from unleak.families.svd.models import SVD

WEIGHTS = Path(__file__).parent

NANO = replace(
    SVD,
    name="nano",
    family="nano",
    source=str(WEIGHTS / "weights"),
    revision=None,
    variant=None,
    summary="shipped with unleak: 12 frames of 64x64 in seconds on a laptop",
    licence="Apache-2.0",
    terms="free to use and change",
    defaults={"height": 64, "width": 64, "num_frames": 12, "decode_chunk_size": 12, "noise_aug_strength": 0.0},
    size_multiple=32,
    memory_gb=1,
    start="sigma=20",
    init="analytic",
    why="measured on the model itself: the README's table",
    moments="moments.safetensors",
    moments_at={},
    motion_starts={"low": "sigma=100", "medium": "sigma=20", "high": "sigma=5"},
)

ROWS = (
    NANO,
    replace(
        NANO,
        name="nano-timenoise",
        source=str(WEIGHTS / "weights_timenoise"),
        part="unet",
        base="nano",
        summary="nano, its last training stage with TimeNoise: for comparison, not for use",
        moments=str(WEIGHTS / "weights" / "moments.safetensors"),
    ),
)
