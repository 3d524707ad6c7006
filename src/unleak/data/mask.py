"""Masks as people draw them."""

from pathlib import Path

from PIL import Image, ImageOps

from unleak.data.image import load_image

__all__ = ["load_mask"]


def load_mask(path: str | Path) -> Image.Image:
    """A mask as an upright RGB image: what is clear is black, other than in a photo, where it is white.

    Raises what `load_image` does.
    """
    flat = load_image(path)
    with Image.open(path) as image:
        if not image.has_transparency_data:
            return flat
        drawn = ImageOps.exif_transpose(image).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", drawn.size, "black"), drawn).convert("RGB")
