"""CogVideoX (Zhipu AI 2024)."""

from dataclasses import replace

from unleak.families.spec import CARRIED_OVER, UNPINNED, ModelSpec

_ROW = ModelSpec(
    name="cogvideox-5b-i2v",
    source="THUDM/CogVideoX-5b-I2V",
    pipeline="CogVideoXImageToVideoPipeline",
    family="cogvideox",
    summary="CogVideoX, 5B, 49 frames of 720x480",
    licence="CogVideoX licence",
    terms="research is free; commercial use needs registration with its authors",
    defaults={"height": 480, "width": 720, "num_frames": 49},
    fps=8,
    size_multiple=16,
    frame_multiple=4,
    why=CARRIED_OVER,
    unverified=(*UNPINNED, "licence"),
)

ROWS = (
    _ROW,
    replace(
        _ROW,
        name="cogvideox1.5-5b-i2v",
        source="THUDM/CogVideoX1.5-5B-I2V",
        summary="CogVideoX 1.5, 5B, 81 frames of 1360x768",
        defaults={"height": 768, "width": 1360, "num_frames": 81},
        fps=16,
    ),
)
