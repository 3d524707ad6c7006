import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from unleak.data import decode_worker
from unleak.data.decode_worker import ClipRequest, Decoding, default_workers, read_clips, read_photo
from unleak.data.image import MediaError, load_image
from unleak.data.video import VideoClip, read_video, write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Two seconds of noise at 10 Hz."""
    frames = np.random.default_rng(0).integers(0, 256, (20, 24, 40, 3), dtype=np.uint8)
    return write_video(frames, tmp_path_factory.mktemp("videos") / "noise.mp4", fps=10)


def request(path, **other):
    return ClipRequest(path, **{"num_frames": 4, "fps": 5.0, "size": (16, 32)} | other)


def outcomes(requests, **decoding):
    with closing(read_clips(requests, decoding=Decoding(**decoding))) as clips:
        return list(clips)


def workers():
    return {child.pid for child in psutil.Process().children()}


@pytest.fixture
def sabotaged(monkeypatch):
    """Workers in which reading a file named after a mishap is that mishap."""
    mishaps = """
import ctypes, os, time, numpy as np, unleak.data.decode_worker as worker
whole = worker.read_video
def sabotaged(path, **asked):
    match path.stem.split('-')[0]:
        case 'sleep': time.sleep(1000)
        case 'hang': ctypes.PyDLL(None).sleep(1000)  # in C, and no other Python thread runs
        case 'segfault': ctypes.string_at(0)
        case 'exit': os._exit(7)
        case 'killed': (gone := path.with_suffix('.once')).exists() or (gone.touch(), os.kill(os.getpid(), 9))
        case 'always': os.kill(os.getpid(), 9)
        case 'half': os.write(3, b'{"fps": 5'); os._exit(0)
        case 'raise': raise LookupError('a bug')
        case 'print': os.write(1, b'noise\\\\n'); print('noise', flush=True)
        case 'eat': np.ones(2 ** 33, np.uint8)
    return whole(path, **asked)
worker.read_video = sabotaged
"""
    code = decode_worker._START.replace("from unleak", f"exec('''{mishaps}'''); from unleak")
    monkeypatch.setattr(decode_worker, "_START", code)


def test_workers_give_what_this_process_does_in_the_order_asked(video, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    short = write_video(np.zeros((2, 16, 16, 3), np.uint8), tmp_path / "short.mp4", fps=5)
    one = write_video(np.zeros((4, 16, 16, 3), np.uint8), tmp_path / "one.mp4", fps=5)
    bad = [tmp_path / "text.mp4", tmp_path / "none.mp4", tmp_path, short]
    requests = [*(request(video, place=k / 9, first=k == 0) for k in range(10)), *map(request, bad)]
    requests += [request(one), request(one, first=False), request(video)]
    there, here = outcomes(requests, workers=2), outcomes(requests, workers=0)
    for ours, theirs in zip(there, here, strict=True):
        assert type(ours) is type(theirs)
        if isinstance(ours, VideoClip):
            assert (ours.fps, ours.notes) == (theirs.fps, theirs.notes)
            assert np.array_equal(ours.frames, theirs.frames)
        else:
            assert str(ours) == str(theirs)
    assert [str(error).split(": ")[0] for error in there if isinstance(error, MediaError)] == list(map(str, bad))
    assert there[-2] is None
    late = read_video(video, num_frames=4, fps=5, start=2 - 0.8, size=(16, 32))
    assert np.array_equal(there[9].frames, late.frames)
    assert not workers()


def test_a_mishap_costs_one_line_that_names_the_file(sabotaged, video, tmp_path):
    mishaps = {
        "sleep": "not read within 3 s; leave it out, or allow more time",
        "hang": "not read within 3 s; leave it out, or allow more time",
        "segfault": "its decoder crashed (SIGSEGV); copy or export it again",
        "exit": "its decoder crashed (exit status 7); copy or export it again",
        "always": "its decoder crashed (SIGKILL); copy or export it again",
        "half": "its decoder crashed (exit status 0); copy or export it again",
        "raise": "its decoder crashed (exit status 1); copy or export it again",
    }
    if sys.platform == "linux":  # others do not limit memory
        mishaps["eat"] = "more than the memory for decoding; scale it down, or allow more memory"
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.mp4")
        mishaps["pipe"] = "a pipe; give a regular file"
    paths = [tmp_path / f"{name}.mp4" for name in ("a", *mishaps, "print", "b")]
    for path in set(paths) - set(tmp_path.iterdir()):
        path.symlink_to(video)
    first, *errors, second, third = outcomes(map(request, paths), workers=2, seconds=3)
    for path, error in zip(paths[1:], errors, strict=False):
        assert str(error) == f"{path}: {mishaps[path.stem]}"
    assert len(errors) == len(mishaps)
    assert np.array_equal(first.frames, second.frames)
    assert np.array_equal(first.frames, third.frames)
    assert not workers()


def test_a_healthy_video_whose_worker_was_killed_is_tried_once_more(sabotaged, video, tmp_path):
    (tmp_path / "killed.mp4").symlink_to(video)
    first, second = outcomes([request(tmp_path / "killed.mp4"), request(video)], workers=1)
    assert (tmp_path / "killed.once").exists()
    assert np.array_equal(first.frames, second.frames)


def test_a_photo_is_decoded_over_there_as_it_is_here(tmp_path):
    Image.effect_noise((31, 17), 90).convert("RGBA").save(tmp_path / "a.png")
    there, here = read_photo(tmp_path / "a.png", decoding=Decoding(1)), load_image(tmp_path / "a.png")
    assert (there.tobytes(), there.size, there.info) == (here.tobytes(), here.size, here.info)
    (tmp_path / "text.png").write_text("no photo")
    for name, message in (("text.png", "not an image that can be read"), ("none.png", "No such file")):
        with pytest.raises(MediaError, match=rf"{name}: .*{message}"):
            read_photo(tmp_path / name, decoding=Decoding(1))
    if sys.platform == "linux":
        Image.new("L", (12_000, 12_000)).save(tmp_path / "large.png")
        with pytest.raises(MediaError, match=r"large.png: more than the memory for decoding"):
            read_photo(tmp_path / "large.png", decoding=Decoding(1, memory=2**29))
    assert not workers()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits memory")
def test_a_small_file_of_large_frames(video, tmp_path):
    first, second = (Image.new("P", (7_000, 7_000), colour) for colour in (0, 1))
    first.save(tmp_path / "large.gif", save_all=True, append_images=[second])
    error, clip = outcomes([request(tmp_path / "large.gif"), request(video)], workers=1, memory=2**29)
    assert str(error).endswith("large.gif: more than the memory for decoding; scale it down, or allow more memory")
    assert isinstance(clip, VideoClip)


def test_requests_are_drawn_late_and_a_closed_iterator_ends_the_workers(sabotaged, video, tmp_path):
    (tmp_path / "hang.mp4").symlink_to(video)
    drawn = []

    def requests():
        for k in range(1000):
            drawn.append(k)
            yield request(video if k < 3 else tmp_path / "hang.mp4")

    with closing(read_clips(requests(), decoding=Decoding(2))) as clips:
        for _ in range(3):
            assert isinstance(next(clips), VideoClip)
        assert len(workers()) == 2
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert len(drawn) == 3 + 3
    assert not workers()


def test_a_worker_that_was_killed_between_two_files_is_replaced(video):
    with closing(read_clips([request(video)] * 6, decoding=Decoding(1))) as clips:
        next(clips)
        for _ in range(2):  # the one read ahead is done when the next arrives
            next(clips)
        (before,) = workers()
        while psutil.Process(before).status() == psutil.STATUS_RUNNING:
            time.sleep(0.05)
        os.kill(before, signal.SIGKILL)
        rest = list(clips)
    assert isinstance(rest[-1], VideoClip)
    assert sum(isinstance(outcome, MediaError) for outcome in rest) <= 1


@pytest.mark.parametrize("stem", ["noise", "sleep"])
def test_workers_end_with_a_killed_parent(sabotaged, video, tmp_path, stem):
    (tmp_path / f"{stem}.mp4").symlink_to(video)
    script = f"""
import time
from pathlib import Path
from unleak.data import decode_worker
decode_worker._START = {decode_worker._START!r}
paths = [Path({str(video)!r}), *[Path({str(tmp_path / stem)!r} + ".mp4")] * 9]
wanted = [decode_worker.ClipRequest(path, 4, 5.0, (16, 32)) for path in paths]
for _ in decode_worker.read_clips(wanted, decoding=decode_worker.Decoding(1)):
    print("read", flush=True)
    time.sleep(1000)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout.readline() == b"read\n"
    (orphan,) = psutil.Process(parent.pid).children()
    parent.kill()
    parent.communicate()
    gone, _ = psutil.wait_procs([orphan], timeout=30)
    if not gone:
        orphan.kill()
    assert gone == [orphan]


def test_too_little_memory_to_start_is_told_as_such(video, monkeypatch):
    monkeypatch.setattr(decode_worker, "_START", "import sys; sys.exit(3)")
    with pytest.raises(ValueError, match=r"with 4 GiB of memory does not start \(exit status 3\); allow more memory"):
        outcomes([request(video)], workers=1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"workers": -1}, "-1 workers: give 0 or more"),
        ({"seconds": 0}, "0 seconds for a video"),
        ({"seconds": float("nan")}, "nan seconds for a video"),
        ({"seconds": float("inf")}, "inf seconds for a video"),
        ({"memory": 2**20}, "GiB of memory for a worker: give 0.25 or more"),
    ],
)
def test_limits_that_make_no_sense(values, message):
    with pytest.raises(ValueError, match=message):
        Decoding(**values)


def test_workers_by_default_leave_each_process_a_core(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(16), raising=False)
    assert [default_workers(n) for n in (1, 2, 4, 8, 16, 64)] == [8, 7, 3, 1, 1, 1]


def test_a_worker_imports_no_torch():
    code = "import sys, unleak.data.decode_worker; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert Path(decode_worker.__file__).is_file()


@pytest.mark.parametrize("asked", [{}, {"num_frames": 3}, {"fps": 5.0}, {"size": (8, 16)}])
def test_a_video_as_it_is(video, asked):
    """Whole, at its own rate and size, unless the request says otherwise: what `read_video` reads."""
    plain = {"num_frames": None, "fps": None, "size": None} | asked
    (found,) = outcomes([ClipRequest(video, **plain, as_is=True)], workers=1)
    wanted = read_video(video, **asked)
    assert found.fps == wanted.fps
    assert np.array_equal(found.frames, wanted.frames)
