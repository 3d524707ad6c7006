"""Wan (Alibaba 2025)."""

from dataclasses import replace

from unleak.families.spec import CARRIED_OVER, UNPINNED, ModelSpec

_ROW = ModelSpec(
    name="wan2.1-i2v-480p",
    source="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
    pipeline="WanImageToVideoPipeline",
    family="wan",
    summary="Wan 2.1, 14B, 81 frames of 832x480",
    licence="apache-2.0",
    terms="free to use and change",
    fps=16,
    size_multiple=16,
    frame_multiple=4,
    why=CARRIED_OVER,
    unverified=UNPINNED,
)

ROWS = (
    _ROW,
    replace(
        _ROW,
        name="wan2.1-i2v-720p",
        source="Wan-AI/Wan2.1-I2V-14B-720P-Diffusers",
        summary="Wan 2.1, 14B, 81 frames of 1280x720",
        defaults={"height": 720, "width": 1280},
    ),
    replace(
        _ROW,
        name="wan2.2-i2v",
        source="Wan-AI/Wan2.2-I2V-A14B-Diffusers",
        summary="Wan 2.2, two experts of 14B, 81 frames of 832x480",
    ),
    replace(
        _ROW,
        name="wan2.2-ti2v-5b",
        source="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
        summary="Wan 2.2, 5B, 121 frames of 1280x704",
        defaults={"height": 704, "width": 1280, "num_frames": 121},
        fps=24,
        size_multiple=32,
        pixels_per_latent=16,
    ),
)
