"""Look at videos before training on them: which can be used, which cannot and why, and how much they move."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from unleak.data.atomic import written_whole
from unleak.data.decode_worker import ClipRequest, Decoding, read_clips
from unleak.data.image import MediaError
from unleak.data.sources import VideoEntry
from unleak.data.video import video_duration
from unleak.measure.motion import DIS, motion_score

__all__ = ["Looked", "histogram", "survey", "write_list"]

_EDGES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)  # px per pair of frames at 800x450, doubling


@dataclass(frozen=True)
class Looked:
    """What is known of one video."""

    entry: VideoEntry
    motion: float | None = None
    """Mean over the pairs of frames, in pixels at 800x450; None if no clip could be read."""
    reason: str | None = None
    """Why training would not use it; None if it would."""

    @property
    def text(self) -> str:
        """Say why it is not used."""
        path, reason = str(self.entry.path), str(self.reason)
        return f"dropped: {reason if path in reason else f'{path}: {reason}'}"


def survey(
    entries: Sequence[VideoEntry],
    clip: ClipRequest,
    *,
    decoding: Decoding,
    min_motion: float = 0.0,
    listed: bool = False,
    on_video: Callable[[], None] | None = None,
) -> list[Looked]:
    """Read the clip at the beginning of each video and measure its motion.

    clip: the frames, rate and size of a clip; its path does not matter. min_motion: drop what moves less, in pixels per
    pair of frames at 800x450. listed: drop videos whose names a list, which is UTF-8, cannot hold. on_video: called
    after each video.
    """
    flow, found = DIS(), list[Looked]()
    readable = [entry for entry in entries if entry.fault is None]
    clips = read_clips((replace(clip, path=entry.path) for entry in readable), decoding=decoding)
    for entry in entries:
        outcome = MediaError(entry.fault) if entry.fault is not None else next(clips)
        if outcome is None or isinstance(outcome, MediaError):
            looked = Looked(entry, reason=str(outcome))
        else:
            score = motion_score(outcome.frames, flow=flow)
            looked = _judged(Looked(entry, score.value / len(score.per_pair)), min_motion, listed=listed)
        found.append(looked)
        if on_video is not None:
            on_video()
    return found


def _judged(looked: Looked, min_motion: float, *, listed: bool) -> Looked:
    """Add the reason not to use a video that can be read."""
    assert looked.motion is not None
    if looked.motion < min_motion:
        slow = f"moves {looked.motion:.2f} px per pair of frames, less than {min_motion:g}"
        return replace(looked, reason=slow)
    try:
        str(looked.entry.path).encode()
    except UnicodeEncodeError:
        if listed:
            return replace(looked, reason="its name is not UTF-8, so no list holds it; rename it")
    return looked


def histogram(scores: Sequence[float]) -> list[tuple[float, float, int]]:
    """Count the scores from one edge to the next, as (from, to, count), up to the largest score."""
    return [
        (low, high, sum(low <= score < high for score in scores))
        for low, high in pairwise([*_EDGES, float("inf")])
        if any(score >= low for score in scores)
    ]


def write_list(path: Path, kept: Sequence[Looked]) -> None:
    """Write a list that `data: {kind: list}` reads; paths below the list's folder are relative to it."""
    folder = path.parent.resolve()
    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "caption", "duration", "motion"])
        for video in kept:
            place = video.entry.path.resolve()
            name = place.relative_to(folder) if place.is_relative_to(folder) else place
            duration = video.entry.duration or video_duration(video.entry.path)
            rows.writerow(
                [name, video.entry.caption, "" if duration is None else f"{duration:.3f}", f"{video.motion:.3f}"]
            )
