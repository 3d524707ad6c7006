"""A size given the wrong way round."""

__all__ = ["swapped"]

_CLEARLY = 1.2
"""Ratio of the sides from which a picture is a landscape or a portrait, and no longer nearly a square."""


def swapped(photo: tuple[int, int], width: int | None, height: int | None) -> str | None:
    """Return a warning if a landscape photo is to become a portrait video, and None otherwise.

    `photo` is (width, height) in pixels. --size is width x height, and giving it the other way round is easily done; a
    portrait photo cut to a model's landscape size is not warned of, for models are made for landscapes.
    """
    if not width or not height or photo[0] < _CLEARLY * photo[1] or height < _CLEARLY * width:
        return None
    return (
        f"the photo is a landscape ({photo[0]}x{photo[1]}) and the video a portrait: --size is width x height, so "
        f"{width}x{height} is {width} wide; for a landscape give --size {height}x{width}"
    )
