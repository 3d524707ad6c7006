"""Read masks as people draw them."""

from pathlib import Path

from PIL import Image

from unleak.data.image import load_image

__all__ = ["load_mask"]


def load_mask(path: str | Path) -> Image.Image:
    """Load a mask as an upright RGB image; what is transparent becomes black, where in a photo it becomes white.

    Raises what `load_image` does.
    """
    return load_image(path, background="black")
