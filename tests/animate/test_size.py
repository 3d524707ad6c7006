import pytest

from unleak.animate.size import swapped


def test_a_landscape_photo_with_a_portrait_size():
    assert swapped((1024, 768), 320, 512) == (
        "the photo is a landscape (1024x768) and the video a portrait: --size is width x height, so 320x512 is 320 "
        "wide; for a landscape give --size 512x320"
    )


@pytest.mark.parametrize(
    ("photo", "size"),
    [((1024, 768), (512, 320)), ((768, 1024), (320, 512)), ((768, 1024), (512, 320)), ((500, 500), (320, 512))],
)
def test_other_sizes_are_not_spoken_of(photo, size):
    assert swapped(photo, *size) is None


def test_a_size_that_the_photo_gives():
    assert swapped((1024, 768), None, None) is None
