"""Kandinsky 5 (2025)."""

from unleak.families.spec import CARRIED_OVER, UNPINNED, ModelSpec

ROWS = (
    ModelSpec(
        name="kandinsky5-i2v-pro",
        source="kandinskylab/Kandinsky-5.0-I2V-Pro-sft-5s-Diffusers",
        pipeline="Kandinsky5I2VPipeline",
        family="kandinsky",
        summary="Kandinsky 5.0 Pro, 121 frames of 768x512",
        licence="mit (not verified)",
        terms="free to use and change",
        fps=24,
        size_multiple=16,
        frame_multiple=4,
        why=CARRIED_OVER,
        unverified=(*UNPINNED, "licence"),
    ),
)
