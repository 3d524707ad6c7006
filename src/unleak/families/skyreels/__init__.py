"""SkyReels V2 (Skywork 2025)."""

from unleak.families.family import Family
from unleak.families.skyreels.models import ROWS

__all__ = ["FAMILY"]

FAMILY = Family(
    "skyreels",
    models=ROWS,
    fps={"SkyReelsV2ImageToVideoPipeline": 24},
    in_float32={"SkyReelsV2ImageToVideoPipeline": ("vae", "image_encoder")},  # as in diffusers' own example
)
