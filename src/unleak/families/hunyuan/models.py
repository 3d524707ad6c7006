"""HunyuanVideo (Tencent 2024)."""

from dataclasses import replace

from unleak.families.spec import CARRIED_OVER, UNPINNED, ModelSpec

_ROW = ModelSpec(
    name="hunyuanvideo-i2v",
    source="hunyuanvideo-community/HunyuanVideo-I2V",
    pipeline="HunyuanVideoImageToVideoPipeline",
    family="hunyuan",
    summary="HunyuanVideo, 13B, 129 frames of 1280x720",
    licence="Tencent Hunyuan community licence",
    terms="not for use in the EU, the United Kingdom and South Korea; a limit on the number of users",
    fps=15,
    size_multiple=16,
    frame_multiple=4,
    why=CARRIED_OVER,
    unverified=(*UNPINNED, "licence"),
)

ROWS = (
    _ROW,
    replace(
        _ROW,
        name="hunyuanvideo1.5-i2v-480p",
        source="hunyuanvideo-community/HunyuanVideo-1.5-480p_i2v",
        pipeline="HunyuanVideo15ImageToVideoPipeline",
        summary="HunyuanVideo 1.5, 8B, 121 frames at 480p, of the shape of the photo",
        fps=24,
        size_multiple=16,
        pixels_per_latent=16,
    ),
)
