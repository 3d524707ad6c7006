"""Every number of one video, and of a folder's videos together."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from unleak.data.image import fit_image, load_image
from unleak.data.video import VideoClip
from unleak.measure.extractors import ImageFeatures
from unleak.measure.frechet import Estimate, frechet_distance, inception_score, with_error
from unleak.measure.intervals import mean_of
from unleak.measure.motion import Flow
from unleak.measure.registry import measured, metrics
from unleak.measure.video import Video
from unleak.study.evaluate.items import Item, check_two_frames

__all__ = ["UCF101", "Protocol", "Tools", "measure_video", "summarize"]


@dataclass(frozen=True)
class Protocol:
    """How videos are read, and how many the sample metrics ask for; None: as the file is, or all of them."""

    num_frames: int | None = None
    fps: float | int | None = None
    reference_fps: float | int | None = None
    """Rate of the real videos where it is another one: a model's own frames are taken as they are."""
    size: tuple[int, int] | None = None
    """Height, width."""
    frechet_samples: int | None = None
    inception_samples: int | None = None

    def rate(self, reference: bool) -> float | int | None:
        """Return the rate that a video is read at, Hz; None: its own."""
        return self.fps or (self.reference_fps if reference else None)


UCF101 = Protocol(num_frames=16, reference_fps=3.0, frechet_samples=2048, inception_samples=10_000)
"""The paper's (section 5.1): clips of 16 frames at 3 Hz, FVD on 2,048 videos and IS on 10,000; see `ucf101`."""


@dataclass(frozen=True, eq=False)
class Tools:
    """What measures: an optical flow, and networks where they are given."""

    flow: Flow
    features: ImageFeatures | None = None
    samples: Mapping[str, Callable[[np.ndarray], np.ndarray]] = field(default_factory=dict)
    """Sample metric -> its network: `FVD`, `VideoMAE Frechet distance`, `IS`. A network may have a `distance`."""

    def estimator(self, by: str | None) -> str:
        """Return the name of what a metric is estimated `by`; empty for a metric that estimates nothing."""
        if by == "flow":
            return self.flow.name
        if by == "features":
            return "SSIM: no --features were given" if self.features is None else f"cosine of {self.features.name}"
        return ""


def measure_video(item: Item, clip: VideoClip, tools: Tools, names: Iterable[str]) -> dict[str, Any]:
    """Measure a video that was read as `clip`, as plain values: the metrics `names` and the networks' features.

    A reference is measured by the metrics that compare with references alone. Raises MediaError for a conditioning
    image that cannot be read and for a video of one frame, ValueError for frames that a network cannot take.
    """
    frames = clip.frames
    check_two_frames(item.path, len(frames))
    seen = None
    if item.image is not None:
        seen = np.asarray(fit_image(load_image(item.image), *frames.shape[1:3]).convert("RGB"))  # as the model saw it
    video = Video(frames, clip.fps, seen, item.prompt or None, item.target_motion, tools.flow, tools.features)
    known = metrics()
    wanted = [name for name in names if not item.reference or known[name].of_references]
    return {
        "frames": len(frames),
        "fps": clip.fps,
        "size": list(frames.shape[1:3]),
        **measured(video, wanted),
        "features": {
            name: network(frames).tolist()
            for name, network in tools.samples.items()
            if not (item.reference and name == "IS")
        },
    }


def summarize(
    videos: Sequence[Mapping[str, Any]],
    references: Sequence[Mapping[str, Any]],
    protocol: Protocol,
    names: Iterable[str],
    networks: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the mean of each metric with its interval over videos, and the sample metrics with their standard errors.

    If there are more videos than the protocol asks for, the first ones count. A sample metric whose network has a
    `distance` is what that returns; its standard error still comes from the bootstrap of the closed form.
    """
    found: dict[str, Any] = {}
    for name in names:
        for label, rows in ((name, videos), (f"{name}_reference", references)):
            values = [row[name] for row in rows if row.get(name) is not None]
            if values:
                found[label] = mean_of(values).record
    for name in dict.fromkeys(name for row in videos for name in row["features"]):
        own = np.array([row["features"][name] for row in videos])
        if name == "IS":
            own, wanted = own[: protocol.inception_samples], protocol.inception_samples
            estimate = with_error(inception_score, own)
        else:
            own, wanted = own[: protocol.frechet_samples], protocol.frechet_samples
            theirs = np.array([row["features"][name] for row in references])[: protocol.frechet_samples]
            if min(len(own), len(theirs)) < 2:
                continue
            estimate = with_error(frechet_distance, own, theirs)
            if distance := getattr((networks or {}).get(name), "distance", None):
                estimate = replace(estimate, value=distance(own, theirs))
        found[name] = _record(estimate, wanted)
    return found


def _record(estimate: Estimate, wanted: int | None) -> dict[str, Any]:
    low, high = estimate.interval
    record: dict[str, Any] = {
        "value": estimate.value,
        "low": low,
        "high": high,
        "error": estimate.error,
        "groups": estimate.samples,
    }
    if wanted and estimate.samples < wanted:
        record["note"] = (
            f"{estimate.samples} videos, the protocol has {wanted}: not to be compared with its published numbers"
        )
    return record
