"""Read photos as people have them into upright 8-bit sRGB."""

import hashlib
import io
import os
import struct
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from unleak.data.files import MediaError as MediaError
from unleak.data.files import open_regular

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif", ".jp2", ".ppm", ".pgm"}
)

# Enough for phones and cameras, little enough for a laptop (see `load_image`), and less than Pillow itself refuses.
MAX_PIXELS = 150_000_000
_STRIP = 2_000_000  # pixels that are converted at a time

_TOO_LARGE = f"more than the {MAX_PIXELS // 1_000_000} million pixels that are read; scale the image down first"

# Only formats that Pillow decodes itself: EPS, for one, would start Ghostscript on the file.
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "JPEG2000", "PPM")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")

# What Pillow's decoders raise on damaged files, seen by damaging files of every format above.
DAMAGED = (
    OSError,
    ValueError,
    RuntimeError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    OverflowError,
    struct.error,
)


def load_image(path: str | Path, *, background: str = "white") -> Image.Image:
    """Load a photo as an upright 8-bit sRGB image (mode "RGB").

    EXIF orientation is applied, transparency is composited on `background`, 16-bit samples are scaled by 1/257,
    palette, grey, CMYK and images with a colour profile are converted to sRGB, and of several frames or pages the first
    is taken. `image.info["notes"]` lists what a person should know about the conversion, and `image.info["sha256"]` is
    the hash of the file that was read.

    Beside what Pillow's decoder needs, this takes at most 8 bytes a pixel: the image as stored and as returned, 1.2 GB
    at `MAX_PIXELS`.

    Raises MediaError if the file is not an image, is empty, damaged, changed while it is read, or larger than
    `MAX_PIXELS` (by its header, before anything is decoded), and OSError if it cannot be opened.
    """
    with open_regular(path) as file, warnings.catch_warnings():
        before = _version(file)
        warnings.simplefilter("ignore")  # Pillow's remarks on metadata and size; ours are errors and notes
        try:
            image = Image.open(file, formats=_FORMATS)
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise MediaError(f"{width}x{height} has {_TOO_LARGE}")
            notes = _notes(image)
            ImageOps.exif_transpose(image, in_place=True)
            rgb = _to_srgb(image, background, notes)
        except UnidentifiedImageError:
            file.seek(0)
            raise MediaError(f"{path}: {_why_unidentified(file.read(16))}") from None
        except Image.DecompressionBombError:
            raise MediaError(f"{path}: the image has {_TOO_LARGE}") from None
        except MediaError as error:
            raise MediaError(f"{path}: {error}") from None
        except DAMAGED as error:
            raise MediaError(f"{path}: truncated or damaged ({_one_line(error)}); copy or export it again") from error
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if _version(file) != before:
            raise MediaError(f"{path}: it was changed while it was read; try again when the file is complete")
    rgb.info = {"notes": notes, "sha256": digest}
    return rgb


def _version(file: BinaryIO) -> tuple[int, int]:
    stat = os.fstat(file.fileno())
    return stat.st_size, stat.st_mtime_ns


def fit_image(image: Image.Image, height: int, width: int) -> Image.Image:
    """Scale `image` to cover `height` x `width` and crop the centre; antialiased."""
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)


def _why_unidentified(head: bytes) -> str:
    if not head:
        return "the file is empty (0 bytes); copy or download it again"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return "HEIC photos cannot be read; export it as JPEG or PNG"
    return "not an image that can be read; give a JPEG, PNG, WebP, AVIF, TIFF, BMP, GIF or JPEG 2000 file"


def _notes(image: Image.Image) -> list[str]:
    count = getattr(image, "n_frames", 1)
    if count == 1 or image.format == "MPO":  # the further pictures of an MPO are a phone's previews and depth maps
        return []
    return [f"{count} {'pages' if image.format == 'TIFF' else 'frames'}, the first is used"]


def _to_srgb(image: Image.Image, background: str, notes: list[str]) -> Image.Image:
    """Convert any mode Pillow has to RGB, a strip at a time; `image` is upright."""
    if image.mode == "F":
        raise MediaError("floating-point pixels have no defined white; save the image with 8 or 16 bits")
    if image.has_transparency_data:
        notes.append(f"transparency is filled with {background}")
    transform = _Profile(image.info.get("icc_profile"))
    rgb = Image.new("RGB", image.size)
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        rgb.paste(transform(_plain(image.crop(box), background)), box)
    if not transform.is_usable:
        notes.append("its colour profile is unusable and ignored")
    return rgb


def _plain(image: Image.Image, background: str) -> Image.Image:
    """Convert to a mode that colour profiles are for: RGB, L or CMYK, 8 bits, without transparency."""
    if image.mode.startswith("I"):
        samples = np.asarray(image, dtype=np.int64)
        if samples.min() < 0 or samples.max() > 65535:
            raise MediaError("more than 16 bits a sample; save the image with 8 or 16 bits")
        return Image.fromarray(((samples + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, background), image).convert("RGB")
    return image if image.mode in ("L", "CMYK") else image.convert("RGB")


class _Profile:
    """Convert from a file's colour profile to sRGB; without one, or with one that is unusable, as Pillow does."""

    def __init__(self, profile: bytes | None) -> None:
        self._profile = profile
        self._transform: ImageCms.ImageCmsTransform | None = None
        self.is_usable = True

    def __call__(self, image: Image.Image) -> Image.Image:
        if self._profile and self.is_usable:
            try:
                if self._transform is None:
                    own, srgb = ImageCms.ImageCmsProfile(io.BytesIO(self._profile)), ImageCms.createProfile("sRGB")
                    self._transform = ImageCms.buildTransform(own, srgb, image.mode, "RGB")
                converted = ImageCms.applyTransform(image, self._transform)
                assert converted is not None  # only an in-place conversion returns nothing
                return converted
            except (ImageCms.PyCMSError, OSError):
                self.is_usable = False
        return image.convert("RGB")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
