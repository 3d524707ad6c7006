import io
import resource
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from unleak.data import image as module
from unleak.data.image import MAX_PIXELS, MediaError, fit_image, load_image

RED, WHITE = (255, 0, 0), (255, 255, 255)


def sixteen_bit_grey() -> Image.Image:
    return Image.fromarray(np.array([[0, 257 * 100, 65535]], dtype=np.uint16))


def half_transparent() -> Image.Image:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 255, 0))
    return image


def palette() -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    return image


@pytest.mark.parametrize(
    ("name", "image", "options", "expected"),
    [
        ("16.png", sixteen_bit_grey(), {}, [(0, 0, 0), (100, 100, 100), WHITE]),
        ("16.tif", sixteen_bit_grey(), {}, [(0, 0, 0), (100, 100, 100), WHITE]),
        ("16.pgm", sixteen_bit_grey(), {}, [(0, 0, 0), (100, 100, 100), WHITE]),
        ("alpha.png", half_transparent(), {}, [RED, WHITE]),
        ("alpha.webp", half_transparent(), {"lossless": True}, [RED, WHITE]),
        ("palette.png", palette(), {}, [RED, (0, 0, 255)]),
        ("palette_alpha.png", palette(), {"transparency": 1}, [RED, WHITE]),
        ("grey.png", Image.new("L", (1, 1), 77), {}, [(77, 77, 77)]),
        ("bilevel.png", Image.new("1", (1, 1), 1), {}, [WHITE]),
        ("grey_alpha.png", Image.new("LA", (1, 1), (77, 0)), {}, [WHITE]),
        ("cmyk.tif", Image.new("CMYK", (1, 1), (0, 255, 255, 0)), {}, [RED]),
        ("one.png", Image.new("RGB", (1, 1), RED), {}, [RED]),
    ],
)
def test_every_kind_of_pixel_becomes_8_bit_rgb(tmp_path, name, image, options, expected):
    image.save(tmp_path / name, **options)
    loaded = load_image(tmp_path / name)
    assert loaded.mode == "RGB"
    assert [loaded.getpixel((x, 0)) for x in range(loaded.width)] == expected


def test_cmyk_jpeg(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    assert np.abs(np.asarray(load_image(tmp_path / "cmyk.jpg"), int) - RED).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_exif_orientation_is_applied(tmp_path, orientation, suffix):
    # Upright, red is at the top left of a landscape picture; the file holds what a turned camera would.
    upright = Image.new("RGB", (48, 32), "white")
    upright.paste(RED, (0, 0, 16, 16))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    stored.save(tmp_path / f"turned.{suffix}", exif=exif)
    loaded = np.asarray(load_image(tmp_path / f"turned.{suffix}"), int)
    assert np.abs(loaded - np.asarray(upright, int)).mean() < 4


def test_a_colour_profile_is_converted_and_a_broken_one_is_said(tmp_path):
    grey = Image.new("RGB", (4, 4), (100, 150, 200))
    linear = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()  # of another colour space: unusable
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, profile, notes in [("srgb", srgb, []), ("lab", linear, ["its colour profile is unusable and ignored"])]:
        grey.save(tmp_path / f"{name}.png", icc_profile=profile)
        loaded = load_image(tmp_path / f"{name}.png")
        assert np.abs(np.asarray(loaded, int) - (100, 150, 200)).max() <= 1
        assert loaded.info["notes"] == notes


def test_first_frame_of_an_animation_with_a_note(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, WHITE)]
    for name in ("a.gif", "a.png", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        loaded = load_image(tmp_path / name)
        assert np.abs(np.asarray(loaded, int) - RED).max() < 6
        assert loaded.info["notes"] == ["2 frames, the first is used"]


def png_bytes() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(buffer, "PNG")
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A valid PNG header of any size, with next to no data behind it."""
    body = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    data = b"IDAT" + zlib.compress(b"\0" * 100)
    chunks = [(len(c) - 4).to_bytes(4, "big") + c + zlib.crc32(c).to_bytes(4, "big") for c in (body, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def float_tiff() -> bytes:
    buffer = io.BytesIO()
    Image.new("F", (4, 4), 0.5).save(buffer, "TIFF")
    return buffer.getvalue()


def deep_tiff() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((2, 2), 70_000, np.int32)).save(buffer, "TIFF")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty (0 bytes)"),
        (b"hello, world", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),  # Pillow would run Ghostscript
        (b"\0\0\0\x18ftypheic" + b"\0" * 64, "HEIC"),
        (png_bytes()[:1500], "truncated or damaged"),
        (png_bytes()[:60] + b"\xff" * 900 + png_bytes()[960:], "truncated or damaged"),
        (png_header(20_000, 20_000), "million pixels"),
        (png_header(13_000, 13_000), "13000x13000"),
        (float_tiff(), "floating-point"),
        (deep_tiff(), "more than 16 bits"),
    ],
)
def test_bad_files_are_one_line_naming_the_file(tmp_path, content, reason):
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(MediaError) as caught:
        load_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert reason in message
    assert "\n" not in message


def test_a_huge_picture_costs_no_memory(tmp_path):
    path = tmp_path / "huge.png"
    path.write_bytes(png_header(20_000, 20_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MediaError):
        load_image(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB; decoded it is 1.2 GB
    assert 20_000**2 > MAX_PIXELS > 108_000_000  # a phone's 108 megapixels pass


def test_a_photo_that_is_written_while_it_is_read_is_refused(tmp_path, monkeypatch):
    """Its hash would be of other bytes than its pixels."""
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8), "red").save(path)
    convert = module._to_srgb

    def and_others_write(*given):
        rgb = convert(*given)
        Image.new("RGB", (8, 8), "blue").save(path)
        return rgb

    monkeypatch.setattr(module, "_to_srgb", and_others_write)
    with pytest.raises(MediaError, match=r"a\.png: it was changed while it was read"):
        load_image(path)


def test_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_image(tmp_path / "none.jpg")


@pytest.mark.parametrize(("size", "target"), [((100, 50), (32, 32)), ((1, 1), (64, 48)), ((7, 900), (16, 64))])
def test_fit_image_covers_and_crops_the_centre(size, target):
    image = Image.new("RGB", size, "blue")
    fitted = fit_image(image, *target)
    assert fitted.size == target[::-1]
    assert np.unique(np.asarray(fitted).reshape(-1, 3), axis=0).tolist() == [[0, 0, 255]]


def test_fit_image_keeps_the_middle_and_is_antialiased():
    stripes = np.zeros((64, 256, 3), np.uint8)
    stripes[:, 96:160] = np.where(np.arange(64) % 2, 255, 0)[None, :, None]  # the middle: one-pixel stripes
    fitted = np.asarray(fit_image(Image.fromarray(stripes), 16, 16), float)
    assert np.abs(fitted[:, 3:-3] - 127.5).max() < 12  # aliased, it would be 0 or 255


@pytest.mark.parametrize("mode", ["I;16", "RGBA", "P", "CMYK"])
def test_the_memory_of_a_large_photo_is_bounded_as_documented(tmp_path, mode):
    """The defect: a PNG of 291 kB with 12240 x 12240 pixels of 16 bits peaked at 3.4 GB."""
    side, suffix = 4000, "jpg" if mode == "CMYK" else "png"
    image = Image.new(mode, (side, side))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned
    image.save(tmp_path / f"a.{suffix}", exif=exif)
    code = (
        "import resource, sys; from PIL import Image; from unleak.data.image import load_image\n"
        "load_image(sys.argv[2])\n"  # whatever is loaded once
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert load_image(sys.argv[1]).mode == 'RGB'\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    Image.new(mode, (8, 8)).save(tmp_path / f"small.{suffix}")
    command = [sys.executable, "-c", code, *(str(tmp_path / f"{name}.{suffix}") for name in ("a", "small"))]
    taken = 1024 * int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert taken < 8 * side**2 + 40_000_000  # a strip and the file


def test_converting_in_strips_is_converting_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_STRIP", 100)
    noise = Image.effect_noise((30, 50), 90)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise.convert("RGB").save(tmp_path / "a.png", icc_profile=profile)
    assert load_image(tmp_path / "a.png").tobytes() == noise.convert("RGB").tobytes()
    rgba = noise.convert("RGBA")
    rgba.putalpha(Image.effect_noise((30, 50), 50))
    rgba.save(tmp_path / "b.png")
    at_once = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    assert load_image(tmp_path / "b.png").tobytes() == at_once.tobytes()
