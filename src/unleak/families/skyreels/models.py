"""SkyReels V2 (Skywork 2025)."""

from unleak.families.spec import CARRIED_OVER, UNPINNED, ModelSpec

ROWS = (
    ModelSpec(
        name="skyreels-v2-i2v-720p",
        source="Skywork/SkyReels-V2-I2V-14B-720P-Diffusers",
        pipeline="SkyReelsV2ImageToVideoPipeline",
        family="skyreels",
        summary="SkyReels V2, 14B, 97 frames of 1280x720",
        licence="Skywork community licence",
        terms="read it before commercial use",
        defaults={"height": 720, "width": 1280},
        fps=24,
        size_multiple=16,
        frame_multiple=4,
        why=CARRIED_OVER,
        unverified=(*UNPINNED, "licence"),
    ),
)
