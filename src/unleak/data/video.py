"""Read videos as frames on an even grid of time, and write frames to files that play everywhere."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, count, pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import Flags as CodecFlags
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideData
from jaxtyping import Float, UInt8
from numpy.typing import ArrayLike
from PIL import Image

from unleak.data.atomic import written_whole
from unleak.data.files import open_regular
from unleak.data.image import MAX_PIXELS, MediaError, fit_image

VIDEO_FORMATS = ("mp4", "gif", "webp", "png")

# Seeking lands on a key frame at or before the instant, if the container knows its key frames.
_SEEK_MARGIN = 2.0  # s

Frames = UInt8[np.ndarray, "f h w 3"]


@dataclass(frozen=True)
class VideoClip:
    """Frames (uint8 RGB, f h w 3, upright), their rate in Hz, and sentences on what was done to them."""

    frames: Frames
    fps: float
    notes: tuple[str, ...] = ()


def read_video(
    path: str | Path,
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    start: float = 0.0,
    size: tuple[int, int] | None = None,
) -> VideoClip:
    """Read `num_frames` frames (all if None) at `fps` Hz from `start` seconds on.

    With `fps`, the frame presented nearest to each instant start + k / fps is taken, whatever the file's own and
    possibly varying rate; without it every frame, and the clip has the file's mean rate. Rotation and mirror flags and
    non-square pixels are applied. With `size` (height, width) frames are scaled to cover it and cropped at the centre.

    Raises MediaError if the file is not a video, is damaged, or ends before `num_frames`, and OSError if it cannot be
    opened.
    """
    with _opened(path) as container:
        own_fps = float(container.streams.video[0].average_rate or 0)
    frames = []
    for frame in stream_frames(path, fps=fps, start=start, size=size):
        frames.append(frame)
        if len(frames) == num_frames:
            break
    if len(frames) < (num_frames or 1):
        rate = f" at {fps:g} Hz" if fps else ""
        raise MediaError(
            f"{path}: {len(frames)} frames{rate} from {start:g} s on, {num_frames or 1} needed; "
            "give a longer video, fewer frames or a higher rate"
        )
    if len({frame.shape for frame in frames}) > 1:
        raise MediaError(f"{path}: the picture changes its size in the middle; give a size to scale all frames to")
    repeats = fps is not None and 0 < own_fps < 0.99 * fps
    notes = (f"{own_fps:g} frames a second, fewer than the {fps:g} asked for: some are repeated",) if repeats else ()
    return VideoClip(np.stack(frames), fps or own_fps, notes)


def stream_frames(
    path: str | Path, *, fps: float | None = None, start: float = 0.0, size: tuple[int, int] | None = None
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yield the frames of `read_video` one by one, to the end of the file; memory does not grow with its length."""
    with _opened(path) as container:
        pixel_aspect = float(container.streams.video[0].sample_aspect_ratio or 1)
        timed = _timed_frames(container, start)
        for frame in _nearest(timed, fps, start) if fps else (frame for time, frame in timed if time > start - 1e-6):
            yield _picture(frame, size, pixel_aspect)


@dataclass(frozen=True)
class VideoHeader:
    """What a file's header says: length in seconds (None: unknown), mean rate in Hz (0: unknown), and the size as
    stored, before any rotation."""

    duration: float | None
    fps: float
    height: int
    width: int


def video_header(path: str | Path) -> VideoHeader:
    """Read the file's header; errors as in `read_video`."""
    with _opened(path) as container:
        stream = container.streams.video[0]
        duration = container.duration / av.time_base if container.duration else None
        if stream.duration and stream.time_base:
            duration = float(stream.duration * stream.time_base)
        return VideoHeader(duration, float(stream.average_rate or 0), stream.height, stream.width)


def video_duration(path: str | Path) -> float | None:
    """Return the length of the video in seconds by the file's header, or None if it does not say."""
    return video_header(path).duration


# ---- reading -------------------------------------------------------------------------------------------------------


def _demuxer(head: bytes) -> str | None:
    """Return FFmpeg's name of the container that begins with `head`; None for one that points at other files."""
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if head[::188].startswith(b"GG") or head[4::192].startswith(b"GG"):
        return "mpegts"
    if head[:4] == b"\x00\x00\x01\xba":
        return "mpeg"
    return None


def _refuse_other_file(url: str, _flags: int, _options: dict[str, str]) -> Any:
    raise PermissionError(f"it points at another file, {url}")


@contextmanager
def _opened(path: str | Path) -> Iterator[InputContainer]:
    """Open a video so that no other file can be: FFmpeg follows playlists and edit scripts whatever their name."""
    with open_regular(path) as file:
        head = file.read(256)
        file.seek(0)
        demuxer = _demuxer(head)
        if not head:
            raise MediaError(f"{path}: the file is empty (0 bytes); copy or download it again")
        if demuxer is None:
            playlist = head.startswith((b"#EXTM3U", b"ffconcat"))
            reason = "a playlist of other files" if playlist else "not a video that can be read"
            raise MediaError(f"{path}: {reason}; give an MP4, MOV, WebM, MKV, AVI, GIF or MPEG file")
        try:
            with av.open(
                file,
                "r",
                format=demuxer,
                io_open=_refuse_other_file,
                options={"protocol_whitelist": "none"},
                metadata_errors="replace",  # titles in any old encoding are none of our business
            ) as container:
                if not any(stream.codec_context for stream in container.streams.video[:1]):
                    raise MediaError(f"{path}: no video in it that can be decoded; give a file with pictures")
                video = container.streams.video[0]
                if video.width * video.height > MAX_PIXELS:
                    raise MediaError(f"{path}: frames of {video.width}x{video.height}; scale the video down first")
                yield container
        except av.FFmpegError as error:
            raise MediaError(f"{path}: truncated or damaged ({error.strerror}); copy or export it again") from error


def _timed_frames(container: InputContainer, start: float) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yield decoded frames with their times in seconds since the beginning; the first may lie well before `start`."""
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    period = float(1 / stream.average_rate) if stream.average_rate else 1 / 25
    origin = float(stream.start_time * stream.time_base) if stream.start_time is not None and stream.time_base else 0.0
    frames = container.decode(stream)
    if start > _SEEK_MARGIN:
        beginning = container.start_time or 0
        container.seek(beginning + round((start - _SEEK_MARGIN) * av.time_base))
        first = next(container.decode(stream), None)
        # Some containers seek by guessing; where the guess is late or unknown, everything is decoded.
        if first is None or first.time is None or first.time - origin > start:
            container.seek(beginning)
            frames = container.decode(stream)
        else:
            frames = chain([first], container.decode(stream))
    time = -period
    for frame in frames:
        # A frame without a time stamp (AVI) follows its predecessor at the mean rate.
        time = frame.time - origin if frame.time is not None else time + period
        yield time, frame


def _nearest(timed: Iterator[tuple[float, av.VideoFrame]], fps: float, start: float) -> Iterator[av.VideoFrame]:
    """Yield, for each instant start + k / fps within the video, the frame with the nearest time."""
    instants = (start + k / fps for k in count())
    instant = next(instants)
    previous, gap = None, 1 / fps
    for time, frame in timed:
        if previous is not None:
            gap = time - previous[0]
            while instant < previous[0] + gap / 2:
                yield previous[1]
                instant = next(instants)
        previous = time, frame
    # The last frame is shown as long as the one before it was.
    while previous is not None and instant < previous[0] + gap - 1e-6:
        yield previous[1]
        instant = next(instants)


def _picture(frame: av.VideoFrame, size: tuple[int, int] | None, pixel_aspect: float) -> UInt8[np.ndarray, "h w 3"]:
    pixels = frame.to_ndarray(format="rgb24")
    height, width = pixels.shape[:2]
    if pixel_aspect != 1:
        stretched = Image.fromarray(pixels).resize(
            (max(1, round(width * pixel_aspect)), height), Image.Resampling.LANCZOS
        )
        pixels = np.asarray(stretched)
    side_data: Any = frame.side_data  # typed as a mapping, but it iterates over its values
    for side in side_data:
        if side.type is SideData.DISPLAYMATRIX:
            pixels = _upright(pixels, np.frombuffer(side, dtype=np.int32).reshape(3, 3)[:2, :2].astype(float))
    if size is not None and pixels.shape[:2] != size:
        pixels = np.asarray(fit_image(Image.fromarray(pixels), *size))
    return np.ascontiguousarray(pixels)


def _upright(pixels: UInt8[np.ndarray, "h w 3"], matrix: Float[np.ndarray, "2 2"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Turn and mirror by whole quarters as a display matrix says: a pixel (x, y) is shown at (x, y) @ matrix."""
    if abs(matrix[0, 1]) > abs(matrix[0, 0]):
        pixels = pixels.swapaxes(0, 1)
        matrix = matrix[::-1]
    return pixels[:: -1 if matrix[1, 1] < 0 else 1, :: -1 if matrix[0, 0] < 0 else 1]


# ---- writing -------------------------------------------------------------------------------------------------------


def write_video(frames: ArrayLike, path: str | Path, *, fps: float, format: str | None = None) -> Path:
    """Write uint8 RGB `frames` (f h w 3, array or CPU tensor) to `path`, whole or not at all.

    `format`, by default the suffix of `path`, is one of `VIDEO_FORMATS`: mp4 (H.264, 4:2:0; odd sizes grow by a
    repeated edge), gif (256 colours, time in 1/100 s), webp (animated), or png: *one* still picture with all frames in
    reading order. The same frames give the same bytes. Raises ValueError for other arguments and OSError if the file
    cannot be written.
    """
    frames = np.asarray(frames)
    path = Path(path)
    format = format or path.suffix.removeprefix(".").lower()
    if format not in VIDEO_FORMATS:
        raise ValueError(f"video format {format!r}: choose one of {', '.join(VIDEO_FORMATS)}")
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames are {frames.dtype} {frames.shape}; give uint8 of shape (frames, height, width, 3)")
    if not 0 < fps <= 240:
        raise ValueError(f"fps {fps:g}: give a frame rate above 0 and up to 240")
    with written_whole(path) as temporary:
        if format == "mp4":
            _write_mp4(frames, temporary, fps)
        elif format == "png":
            _contact_sheet(frames).save(temporary, "PNG")
        else:
            # Each frame's end is rounded, not its duration: the mean rate stays true.
            tick = 10 if format == "gif" else 1
            ends = [round(1000 * k / fps / tick) * tick for k in range(len(frames) + 1)]
            pictures = [Image.fromarray(frame) for frame in frames]
            pictures[0].save(
                temporary,
                format.upper(),
                save_all=True,
                append_images=pictures[1:],
                duration=[end - begin for begin, end in pairwise(ends)],
                loop=0,
                quality=90,
            )
    return path


def _write_mp4(frames: Frames, path: Path, fps: float) -> None:
    # H.264 with 4:2:0 chroma wants even sizes.
    _, height, width, _ = frames.shape
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    # The same bytes every time: no library version in the container, one thread, and no macroblock tree, whose assembly
    # in x264 gives one of several results at random on small frames.
    encoder = {"crf": "14", "x264-params": "mbtree=0"}
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with av.open(str(path), "w", format="mp4", container_options=options) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=encoder)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.codec_context.flags |= CodecFlags.bitexact
        stream.colorspace = stream.color_primaries = stream.color_trc = (
            1  # BT.709, said in the file: no player has to guess
        )
        stream.color_range = 1
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture.reformat(format="yuv420p", dst_colorspace="ITU709")))
        container.mux(stream.encode())


def _contact_sheet(frames: Frames) -> Image.Image:
    columns = math.ceil(math.sqrt(len(frames)))
    count, height, width, _ = frames.shape
    sheet = Image.new("RGB", (columns * width, math.ceil(count / columns) * height), "white")
    for index, frame in enumerate(frames):
        sheet.paste(Image.fromarray(frame), (index % columns * width, index // columns * height))
    return sheet
