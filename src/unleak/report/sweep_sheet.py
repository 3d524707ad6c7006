"""Several videos as one picture: a row for each, a column for each frame."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

CELL, GAP, MARGIN, HEAD, SIDE, COLUMNS = 144, 6, 20, 34, 132, 12  # px; CELL is the height of a frame
_PAPER, _INK, _FAINT = (255, 255, 255), (24, 26, 32), (112, 117, 128)


def contact_sheet(
    videos: Sequence[UInt8[np.ndarray, "f h w 3"]], labels: Sequence[tuple[str, ...]], *, columns: int = COLUMNS
) -> Image.Image:
    """A row for each of `videos` (of one shape), its lines of `labels` to the left; a column for each frame.

    Frames are scaled to a height of `CELL` px; of more than `columns` frames that many are taken, evenly spaced, the
    first and the last among them. Their numbers, from 1, stand above.
    """
    count, height, width, _ = videos[0].shape
    chosen = np.linspace(0, count - 1, min(columns, count)).round().astype(int)
    cell = max(1, round(CELL * width / height))
    right, bottom = SIDE + len(chosen) * (cell + GAP), HEAD + len(videos) * (CELL + GAP)
    sheet = Image.new("RGB", (right - GAP + 2 * MARGIN, bottom - GAP + 2 * MARGIN), _PAPER)
    draw, head, small = ImageDraw.Draw(sheet), ImageFont.load_default(20), ImageFont.load_default(14)
    for column, index in enumerate(chosen):
        middle = MARGIN + SIDE + column * (cell + GAP) + cell / 2
        draw.text((middle, MARGIN), str(index + 1), _FAINT, small, anchor="ma")
    draw.text((MARGIN, MARGIN), "frame", _FAINT, small)
    for row, (video, lines) in enumerate(zip(videos, labels, strict=True)):
        top = MARGIN + HEAD + row * (CELL + GAP)
        for line, text in enumerate(lines):
            font, ink = (small, _FAINT) if line else (head, _INK)
            draw.text((MARGIN, top + CELL / 2 + 24 * (line - (len(lines) - 1) / 2)), text, ink, font, anchor="lm")
        for column, index in enumerate(chosen):
            frame = Image.fromarray(video[index]).resize((cell, CELL), Image.Resampling.LANCZOS)
            sheet.paste(frame, (MARGIN + SIDE + column * (cell + GAP), top))
    return sheet
