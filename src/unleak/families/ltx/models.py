"""LTX-Video (Lightricks 2024)."""

from dataclasses import replace

from unleak.families.spec import CARRIED_OVER, UNPINNED, ModelSpec

_ROW = ModelSpec(
    name="ltx-video",
    source="Lightricks/LTX-Video",
    pipeline="LTXImageToVideoPipeline",
    family="ltx",
    summary="LTX-Video, 161 frames of 704x512",
    licence="LTX-Video open weights licence",
    terms="its use restrictions hold for what is made of it too",
    size_multiple=32,
    pixels_per_latent=32,
    frame_multiple=8,
    why=CARRIED_OVER,
    unverified=(*UNPINNED, "licence"),
)

ROWS = (
    _ROW,
    replace(
        _ROW,
        name="ltx-2",
        source="Lightricks/LTX-2",
        pipeline="LTX2ImageToVideoPipeline",
        summary="LTX-2, with sound, videos of 768x512",
        licence="LTX-2 community licence",
    ),
)
