"""SANA-Video (NVIDIA 2025)."""

from unleak.families.spec import CARRIED_OVER, UNPINNED, ModelSpec

ROWS = (
    ModelSpec(
        name="sana-video-480p",
        source="Efficient-Large-Model/SANA-Video_2B_480p_diffusers",
        pipeline="SanaImageToVideoPipeline",
        family="sana",
        summary="SANA-Video, 2B, 81 frames of 832x480",
        licence="NVIDIA licence (not verified)",
        terms="read it before commercial use",
        fps=16,
        size_multiple=32,
        frame_multiple=4,
        why=CARRIED_OVER,
        unverified=(*UNPINNED, "licence"),
    ),
)
