"""The model that is shipped with unleak. Its size is written in one place: the configuration of its own weights."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from unleak.families.svd.models import SVD

WEIGHTS = Path(__file__).parent


def _read_config(part: str) -> dict[str, Any]:
    """Read the configuration of a part of nano; empty in an installation without the weights, which loading reports."""
    path = WEIGHTS / "weights" / part / "config.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


_UNET, _VAE = _read_config("unet"), _read_config("vae")
_FRAMES = _UNET.get("num_frames", 1)
_PIXELS = 2 ** (len(_VAE.get("block_out_channels", "1")) - 1)
"""Pixels per latent, a side: each level of the autoencoder but the first halves the picture."""
_SIDE = _UNET.get("sample_size", 1) * _PIXELS

NANO = replace(
    SVD,
    name="nano",
    family="nano",
    source=str(WEIGHTS / "weights"),
    revision=None,
    variant=None,
    summary=f"shipped with unleak: {_FRAMES} frames of {_SIDE}x{_SIDE} in seconds on a laptop",
    licence="Apache-2.0",
    terms="free to use and change",
    defaults={
        "height": _SIDE,
        "width": _SIDE,
        "num_frames": _FRAMES,
        "decode_chunk_size": _FRAMES,
        "noise_aug_strength": 0.0,
    },
    size_multiple=_PIXELS * 2 ** (len(_UNET.get("block_out_channels", "1")) - 1),
    pixels_per_latent=_PIXELS,
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
