"""Decode clips in processes of their own: a file that hangs, crashes or eats memory costs one line, not the run.

A worker is this module run by a fresh interpreter that imports PyAV, numpy and Pillow, no torch. Requests and replies
are lines of JSON through its standard streams, frames follow their reply as plain bytes. When the parent ends, however
it ends, the worker's input does too, and the worker with it.
"""

import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Lock, Thread, Timer
from typing import IO, Any, TypeAlias

import numpy as np
from PIL import Image

from unleak.data.image import MediaError, load_image
from unleak.data.video import VideoClip, read_video, video_duration, video_header

__all__ = ["ClipReader", "ClipRequest", "Decoding", "default_workers", "read_clips", "read_photo"]

Clip: TypeAlias = VideoClip | MediaError | None
Outcome: TypeAlias = Clip | Image.Image

# `python -c` with the parent's own module path: neither its main script nor the current folder is imported from.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from unleak.data.decode_worker import _serve; _serve(int(sys.argv[2]))"
)
_SECONDS_TO_START = 120.0
# One thread for numpy, which does nothing here, and few of malloc's arenas: both reserve memory for every core.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}


@dataclass(frozen=True)
class ClipRequest:
    """`num_frames` frames at `fps` Hz, scaled and cropped to `size` (height, width), from somewhere in a video.

    `fps` None: every `stride`-th frame of the video; of one too short for that, every n-th with the largest n for which
    it is long enough. `place` from 0 (the beginning) to 1 (as late as the clip fits) says where. One that is not the
    `first` of its video is wanted only where the video is known to be longer than the clip.

    `as_is`: read from the beginning, as `read_video` does: `fps`, `num_frames` and `size` may then be None.
    """

    path: Path
    num_frames: int | None
    fps: float | int | None
    size: tuple[int, int] | None
    place: float = 0.0
    first: bool = True
    stride: int = 1
    as_is: bool = False


@dataclass(frozen=True)
class PhotoRequest:
    """A photo as `load_image` gives it."""

    path: Path


Request: TypeAlias = ClipRequest | PhotoRequest


@dataclass(frozen=True)
class Decoding:
    """How clips are decoded: by `workers` processes (0: by this one, without limits), each clip in at most `seconds`
    and each process in at most `memory` bytes of address space, where the platform can limit that (Linux).
    """

    workers: int = 2
    seconds: float = 60.0
    memory: float = 4.0 * 2**30

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"{self.workers} workers: give 0 or more")
        if not 0 < self.seconds <= 86_400:
            raise ValueError(f"{self.seconds:g} seconds for a video: give more than 0 and at most 86400, a day")
        if not 2**28 <= self.memory < 2**60:
            raise ValueError(f"{self.memory / 2**30:g} GiB of memory for a worker: give 0.25 or more, such as 4")


def default_workers(processes: int = 1) -> int:
    """Choose how many workers suit this machine if `processes` processes share it; each of those keeps a core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // processes - 1))


def read_photo(path: str | Path, *, decoding: Decoding) -> Image.Image:
    """Load a photo in a process of its own, within the time and memory of `decoding`; errors as in `load_image`."""
    reader = ClipReader(decoding)
    try:
        outcome = reader.read(PhotoRequest(Path(path)))
    finally:
        reader.close()
    if isinstance(outcome, MediaError):
        raise outcome
    assert isinstance(outcome, Image.Image)
    return outcome


def read_clips(requests: Iterable[ClipRequest], *, decoding: Decoding | None = None) -> Generator[Clip, None, None]:
    """Give the clip of each request, in their order; MediaError where there is none, None where it does not fit.

    At most two clips for each worker are read ahead, and requests are drawn as late as that allows. Close the iterator
    (`contextlib.closing`) to stop early; workers end with it. Raises ValueError if workers cannot start.
    """
    decoding = decoding or Decoding()
    if not decoding.workers:
        for request in requests:
            yield _clip(_outcome(request))
        return
    workers = [ClipReader(decoding) for _ in range(decoding.workers)]
    idle = SimpleQueue[ClipReader]()
    for worker in workers:
        idle.put(worker)

    def read(request: ClipRequest) -> Clip:
        worker = idle.get()
        try:
            return _clip(worker.read(request))
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(len(workers), thread_name_prefix="decode") as threads:
        pending = deque[Future[Clip]]()
        try:
            for request in requests:
                pending.append(threads.submit(read, request))
                if len(pending) == 2 * len(workers):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
            for worker in workers:
                worker.close()


# ---- in the parent -------------------------------------------------------------------------------------------------


def _clip(outcome: Outcome) -> Clip:
    assert not isinstance(outcome, Image.Image)
    return outcome


class _KilledError(MediaError):
    """The process was killed while it decoded."""


class ClipReader:
    """A decoding process, started when it is first needed and again when it has ended. Ends with whoever holds it."""

    def __init__(self, decoding: Decoding):
        self.decoding = decoding
        self.process: subprocess.Popen[bytes] | None = None
        self.closed = False
        self.lock = Lock()  # so that no process is started while the readers are closed

    def read(self, request: Request) -> Outcome:
        """Decode one clip over there; MediaError if the process does not answer in time, or ends.

        A process that somebody killed (the kernel, for want of memory) says nothing about the video, so that is tried
        once more.
        """
        outcome = self._read(request)
        return self._read(request) if isinstance(outcome, _KilledError) else outcome

    def _read(self, request: Request) -> Outcome:
        process, overdue = self._running(), Event()

        def give_up() -> None:
            overdue.set()
            process.kill()

        timer = Timer(self.decoding.seconds, give_up)
        timer.daemon = True
        timer.start()
        try:
            outcome = _ask(process, request)
        except (OSError, EOFError, ValueError, LookupError, TypeError, MemoryError, RecursionError):
            # No reply, half of one, or one that a decoder out of control has written.
            how = _end(process)
            kind = _KilledError if how in ("SIGKILL", "SIGTERM") else MediaError
            outcome = kind(f"{request.path}: its decoder crashed ({how}); copy or export it again")
        finally:
            timer.cancel()
            timer.join()  # now `overdue` is final: a late kill cannot hit the next request
        if overdue.is_set():
            _end(process)
            limit = f"{self.decoding.seconds:g} s"
            return MediaError(f"{request.path}: not read within {limit}; leave it out, or allow more time")
        return outcome

    def close(self) -> None:
        """End the process, whatever it is doing; it is not started again."""
        with self.lock:
            self.closed = True
            if self.process is not None:
                self.process.kill()
                _end(self.process)

    def _running(self) -> "subprocess.Popen[bytes]":
        with self.lock:
            if self.closed:
                raise RuntimeError("closed while it waited; nobody reads this")
            if self.process is None or self.process.poll() is not None:
                self.process = _start(self.decoding)
            return self.process


def _start(decoding: Decoding) -> "subprocess.Popen[bytes]":
    """Start a process and wait until it is ready: what is slow or fails here is no video's fault."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _START, json.dumps(sys.path), str(int(decoding.memory))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # what C libraries say when they crash
        env=os.environ | _ENVIRONMENT,
    )
    timer = Timer(_SECONDS_TO_START, process.kill)
    timer.daemon = True
    timer.start()
    ready = process.stdout is not None and process.stdout.readline()
    timer.cancel()
    if not ready:
        raise ValueError(
            f"a decoding process with {decoding.memory / 2**30:g} GiB of memory does not start ({_end(process)}); "
            "allow more memory, or decode without workers (0)"
        )
    return process


def _ask(process: "subprocess.Popen[bytes]", request: Request) -> Outcome:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(asdict(request) | {"path": str(request.path)}).encode() + b"\n")
    process.stdin.flush()
    reply = json.loads(process.stdout.readline())
    match reply:
        case None:
            return None
        case {"error": str(reason)}:
            return MediaError(reason)
    frames = np.empty(reply["shape"], np.uint8)
    if process.stdout.readinto(frames.data.cast("B")) < frames.nbytes:  # type: ignore[attr-defined]
        raise EOFError
    if isinstance(request, PhotoRequest):
        image = Image.fromarray(frames)
        image.info = reply["info"]
        return image
    return VideoClip(frames, reply["fps"], tuple(reply["notes"]))


def _end(process: "subprocess.Popen[bytes]") -> str:
    """Wait for a process that has closed its end, and say how it ended."""
    try:
        status = process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        status = process.wait()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):  # of what was not sent any more
            if pipe is not None:
                pipe.close()
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"


# ---- in the worker -------------------------------------------------------------------------------------------------


def _outcome(request: Request) -> Outcome:
    try:
        if isinstance(request, PhotoRequest):
            return load_image(request.path)
        if request.as_is:
            return read_video(request.path, num_frames=request.num_frames, fps=request.fps, size=request.size)
        assert request.num_frames is not None
        fps = request.fps or _strided(request)
        spare = max(0.0, (video_duration(request.path) or 0.0) - request.num_frames / fps)
        if not spare and not request.first:
            return None
        return read_video(
            request.path,
            num_frames=request.num_frames,
            fps=fps,
            start=request.place * spare,
            size=request.size,
        )
    except MemoryError:
        return _too_large(request)
    except MediaError as error:
        return _too_large(request) if isinstance(error.__cause__, MemoryError) else error
    except OSError as error:
        return MediaError(f"{request.path}: {error.strerror or error}")


def _strided(request: ClipRequest) -> float:
    """Return the rate of every `stride`-th frame, or of the largest stride that the video is long enough for."""
    header = video_header(request.path)
    if not header.fps:
        raise MediaError(f"{request.path}: it does not say its frame rate, so a stride means nothing; give an fps")
    assert request.num_frames is not None
    # Half a frame is forgiven: durations are rounded.
    longest = (header.duration or 0.0) * header.fps + 0.5
    stride = max(1, min(request.stride, int(longest // request.num_frames)))
    return header.fps / stride


def _too_large(request: Request) -> MediaError:
    return MediaError(f"{request.path}: more than the memory for decoding; scale it down, or allow more memory")


def _serve(memory: int) -> None:
    try:
        _answer(memory)
    finally:  # at once: an orderly end would wait for the thread that listens
        os._exit(1)


def _answer(memory: int) -> None:
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever C libraries print
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    _limit(memory)
    lines = SimpleQueue[bytes]()
    Thread(target=_listen, args=(sys.stdin.buffer, lines), daemon=True).start()
    replies.write(b"ready\n")
    while True:
        replies.flush()
        values = json.loads(lines.get())
        match _outcome(_request(values)):
            case VideoClip() as clip:
                about = {"fps": clip.fps, "notes": clip.notes, "shape": clip.frames.shape}
                replies.write(json.dumps(about).encode() + b"\n")
                replies.write(np.ascontiguousarray(clip.frames).data)
            case Image.Image() as image:
                about = {"shape": (image.height, image.width, 3), "info": image.info}
                replies.write(json.dumps(about).encode() + b"\n")
                replies.write(image.tobytes())
            case MediaError() as error:
                replies.write(json.dumps({"error": str(error)}).encode() + b"\n")
            case None:
                replies.write(b"null\n")


def _request(values: dict[str, Any]) -> Request:
    path, size = Path(values["path"]), values.get("size")
    if "num_frames" not in values:
        return PhotoRequest(path)
    return ClipRequest(**values | {"path": path, "size": None if size is None else tuple(size)})


def _listen(requests: IO[bytes], lines: "SimpleQueue[bytes]") -> None:
    """Hand on what the parent asks, and end with the parent, even while a file is being decoded."""
    for line in requests:
        lines.put(line)
    os._exit(0)


def _limit(memory: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    with suppress(ValueError, OSError):  # macOS knows the name only
        resource.setrlimit(resource.RLIMIT_AS, (memory if hard == resource.RLIM_INFINITY else min(memory, hard), hard))
