import ctypes
import os
import struct
import subprocess
import sys
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from unleak.data.image import MediaError
from unleak.data.video import VIDEO_FORMATS, read_video, stream_frames, video_duration, write_video


def numbered(count: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Frames whose grey level is 10 times their number, with a white top left corner."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[:] = (10 * np.arange(count) % 250)[:, None, None, None]
    frames[:, : height // 4, : width // 4] = 255
    return frames


def numbers(frames: np.ndarray) -> list[int]:
    """Which of `numbered` each frame is, by its lower right part."""
    return (frames[:, -8:, -8:].mean((1, 2, 3)) / 10).round().astype(int).tolist()


def encode(path, frames, *, times=None, rate=10, container=None, codec="libx264", setup=lambda stream: None):
    """A video as other programs write them: any container, codec, time stamps, flags."""
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        setup(stream)
        for k, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if times is not None:
                picture.pts, picture.time_base = round(times[k] * 1000), Fraction(1, 1000)
            output.mux(stream.encode(picture))
        output.mux(stream.encode())
    return path


# ---- writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", VIDEO_FORMATS)
def test_same_frames_give_the_same_bytes(tmp_path, format):
    frames = np.random.default_rng(0).integers(0, 256, (8, 32, 48, 3), dtype=np.uint8)
    first = write_video(frames, tmp_path / f"a.{format}", fps=7).read_bytes()
    for _ in range(5):
        assert write_video(frames, tmp_path / "b", fps=7, format=format).read_bytes() == first
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"a.{format}", "b"]


def test_mp4_plays_everywhere_and_carries_no_metadata(tmp_path):
    content = write_video(numbered(9), tmp_path / "a.mp4", fps=8).read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")
    assert b"Lavf" not in content
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 8
        assert stream.frames == 9


@pytest.mark.parametrize("shape", [(32, 48), (33, 47), (1, 1)])
def test_mp4_comes_back_as_written(tmp_path, shape):
    frames = np.empty((5, *shape, 3), np.uint8)
    frames[:] = (200, 50, 30)  # a strong colour: a wrong matrix (BT.601 for 709) or range shows
    clip = read_video(write_video(frames, tmp_path / "a.mp4", fps=7.5))
    height, width = shape
    assert clip.frames.shape == (5, height + height % 2, width + width % 2, 3)
    assert np.abs(clip.frames.astype(int) - (200, 50, 30)).max() <= 3
    assert clip.fps == 7.5


@pytest.mark.parametrize("fps", [7, 24, 30])
def test_gif_and_webp_keep_frames_and_time(tmp_path, fps):
    frames = numbered(12)
    clip = read_video(write_video(frames, tmp_path / "a.gif", fps=fps))
    assert numbers(clip.frames) == list(range(12))
    with Image.open(write_video(frames, tmp_path / "a.webp", fps=fps)) as webp:
        assert webp.n_frames == 12
    assert video_duration(tmp_path / "a.gif") == pytest.approx(12 / fps, abs=0.011)


def test_png_is_one_sheet_in_reading_order(tmp_path):
    frames = numbered(5, 4, 4)
    sheet = np.asarray(Image.open(write_video(frames, tmp_path / "a.png", fps=7)))
    assert sheet.shape == (8, 12, 3)
    assert np.array_equal(sheet[4:, 4:8], frames[4])
    assert (sheet[4:, 8:] == 255).all()


@pytest.mark.parametrize(
    ("frames", "fps", "name", "message"),
    [
        (numbered(2), 7, "a.mkv", "choose one of mp4, gif, webp, png"),
        (numbered(2).astype(float), 7, "a.mp4", "float64"),
        (numbered(2)[..., :1], 7, "a.mp4", "(2, 32, 48, 1)"),
        (numbered(0), 7, "a.mp4", "(0, 32, 48, 3)"),
        (numbered(2), 0, "a.mp4", "fps 0"),
    ],
)
def test_wrong_arguments_say_what_to_give(tmp_path, frames, fps, name, message):
    with pytest.raises(ValueError, match=r"choose|give") as caught:
        write_video(frames, tmp_path / name, fps=fps)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
import resource, sys, numpy as np
from unleak.data.video import write_video
frames = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
for write in [lambda f=f: write_video(frames, f"{sys.argv[1]}/a.{f}", fps=7) for f in ("mp4", "gif", "webp", "png")]:
    try:
        write()
    except OSError as error:
        print(error.strerror)
"""


def test_a_full_disk_is_an_error_and_leaves_what_was_there(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"precious")
    result = subprocess.run([sys.executable, "-c", FULL_DISK, tmp_path], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["File too large"] * 4
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"precious"


def test_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_video(numbered(2), tmp_path / "a.gif", fps=7)
    assert list(tmp_path.iterdir()) == []


# ---- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fps", "start", "expected"),
    [
        (None, 0, list(range(20))),
        (None, 1.5, [15, 16, 17, 18, 19]),
        (10, 0, list(range(20))),
        (5, 0, list(range(0, 20, 2))),
        (2.5, 0, [0, 4, 8, 12, 16]),
        (20, 1.81, [18, 19, 19, 19]),
        (3, 0, [0, 3, 7, 10, 13, 17]),
        (1, 1.24, [12]),
    ],
)
def test_nearest_frame_in_time(tmp_path, fps, start, expected):
    clip = read_video(encode(tmp_path / "a.mp4", numbered(20)), fps=fps, start=start)
    assert numbers(clip.frames) == expected
    assert clip.fps == (fps or 10)
    assert ("repeated" in "".join(clip.notes)) == (fps == 20)


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_variable_frame_rate_goes_by_time_stamps(tmp_path, container):
    times = [0, 0.1, 0.2, 1.0, 1.1, 1.95, 2.0]  # by number, frame 3 would be shown at 0.3 s
    path = encode(tmp_path / "a", numbered(7), times=times, container=container)
    assert numbers(read_video(path, fps=2, num_frames=4).frames) == [0, 2, 3, 4]


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp4", "libx264"), ("mov", "mpeg4"), ("matroska", "libx264"), ("webm", "libvpx-vp9"), ("avi", "mpeg4"),
     ("mpegts", "libx264"), ("mpeg", "mpeg2video")],
)  # fmt: skip
def test_containers_and_seeking(tmp_path, container, codec):
    def short_groups(stream):
        stream.codec_context.gop_size = 5

    frames = numbered(100)
    path = encode(tmp_path / "x", frames, container=container, codec=codec, rate=25, setup=short_groups)
    clip = read_video(path, fps=12.5, start=3, num_frames=4, size=(16, 16))  # far enough in for a seek
    assert clip.frames.shape == (4, 16, 16, 3)
    assert numbers(clip.frames) == [n % 25 for n in (75, 77, 79, 81)]
    assert video_duration(path) == pytest.approx(4, abs=0.15)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_rotation_and_mirror_flags(tmp_path, rotation, mirrored):
    def turn(stream):
        stream.set_display_rotation(rotation)

    def turn_and_mirror(stream):
        stream.set_display_rotation(rotation, hflip=True)

    turned = encode(tmp_path / "b.mp4", numbered(3), setup=turn)
    with av.open(str(turned)) as container:
        quarters = next(container.decode(video=0)).rotation // 90
    if mirrored:
        turned = encode(tmp_path / "c.mp4", numbered(3), setup=turn_and_mirror)
    with av.open(str(turned)) as container:  # of the same file: an encoder with threads is not the same twice
        expected = np.rot90(next(container.decode(video=0)).to_ndarray(format="rgb24"), quarters)
    if mirrored:
        expected = np.fliplr(expected)
    assert np.array_equal(read_video(turned).frames[0], expected)


def test_non_square_pixels_are_stretched(tmp_path):
    def wide(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)

    assert read_video(encode(tmp_path / "a.mp4", numbered(3), setup=wide)).frames.shape == (3, 32, 96, 3)


def test_streaming_does_not_keep_frames(tmp_path):
    path = encode(tmp_path / "a.mp4", np.tile(numbered(25, 128, 128), (10, 1, 1, 1)))
    tracemalloc.start()
    count = sum(1 for _ in stream_frames(path, size=(64, 64)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 250
    assert peak < 30 * 128 * 128 * 3


def audio_only(path):
    with av.open(str(path), "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))
        output.mux(stream.encode())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty (0 bytes)"),
        (b"hello", "not a video"),
        (b"\x89PNG\r\n\x1a\n", "not a video"),
        (b"\0\0\0\x18ftypisom" + b"\0" * 300, "truncated or damaged"),
        ("cut", "truncated or damaged"),
        ("audio", "no video in it"),
        ("codec", "no video in it that can be decoded"),
        ("short", "3 frames at 10 Hz from 0 s on, 12 needed"),
    ],
)
def test_bad_videos_are_one_line_naming_the_file(tmp_path, content, reason):
    path = tmp_path / "bad.mp4"
    if content == "cut":
        encode(path, numbered(20))
        path.write_bytes(path.read_bytes()[:2000])  # the index, at the end, is lost
    elif content == "audio":
        audio_only(path)
    elif content == "codec":
        path.write_bytes(encode(path, numbered(20)).read_bytes().replace(b"avc1", b"\xe9vc1"))
    elif content == "short":
        encode(path, numbered(3))
    else:
        path.write_bytes(content)
    with pytest.raises(MediaError) as caught:
        read_video(path, num_frames=12, fps=10)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert reason in message
    assert "\n" not in message


class FileWatch:
    """Whether anything opened a file, by the kernel (inotify)."""

    IN_OPEN = 0x20

    def __init__(self, path):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = self.libc.inotify_init1(os.O_NONBLOCK)
        assert self.libc.inotify_add_watch(self.descriptor, os.fsencode(path), self.IN_OPEN) >= 0

    def opened(self) -> bool:
        try:
            event = os.read(self.descriptor, 4096)
        except BlockingIOError:
            return False
        return struct.unpack_from("iI", event)[1] == self.IN_OPEN


@pytest.mark.skipif(sys.platform != "linux", reason="inotify")
@pytest.mark.parametrize(
    "playlist",
    [
        "ffconcat version 1.0\nfile other.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nother.mp4\n#EXT-X-ENDLIST\n",
        "\0\0\0\0ftyp\nffconcat version 1.0\nfile other.mp4\n",
    ],
)
def test_a_playlist_named_mp4_is_not_followed(tmp_path, playlist):
    other = encode(tmp_path / "other.mp4", numbered(5))
    path = tmp_path / "list.mp4"
    path.write_text(playlist)
    watch = FileWatch(other)
    with pytest.raises(MediaError):
        read_video(path)
    assert not watch.opened()
    if playlist.startswith("ffconcat"):  # the guard can fail: this is what a plain open does
        with av.open(str(path)) as container:
            next(container.decode(video=0))
        assert watch.opened()


@pytest.mark.skipif(sys.platform != "linux", reason="inotify")
def test_even_ffmpegs_playlist_reader_gets_no_other_file(tmp_path, monkeypatch):
    other = encode(tmp_path / "other.mp4", numbered(5))
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile other.mp4\n")
    monkeypatch.setattr("unleak.data.video._demuxer", lambda head: "concat")
    watch = FileWatch(other)
    with pytest.raises(MediaError):
        read_video(tmp_path / "list.mp4")
    assert not watch.opened()
