"""HunyuanVideo (Tencent 2024, 2025) and SkyReels V1, which is made of it."""

from unleak.families.family import Family
from unleak.families.hunyuan.models import ROWS

__all__ = ["FAMILY"]

FAMILY = Family(
    "hunyuan",
    models=ROWS,
    fps={
        "HunyuanVideoImageToVideoPipeline": 15,
        "HunyuanSkyreelsImageToVideoPipeline": 15,
        "HunyuanVideo15ImageToVideoPipeline": 24,
    },
)
