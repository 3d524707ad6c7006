"""Every number of one video file, and of a folder's videos together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from unleak.data.image import fit_image, load_image
from unleak.data.video import read_video
from unleak.measure.consistency import dynamic_degree, image_alignment, temporal_consistency, warping_error
from unleak.measure.extractors import ImageFeatures
from unleak.measure.fidelity import first_frame_psnr, flicker
from unleak.measure.frechet import Estimate, frechet_distance, inception_score, with_error
from unleak.measure.intervals import mean_of
from unleak.measure.motion import Flow, motion_score

__all__ = ["METRICS", "UCF101", "Protocol", "Tools", "measure_video", "summarize"]


@dataclass(frozen=True)
class Protocol:
    """How videos are read, and how many the sample metrics want; None: as the file is, or all of them."""

    num_frames: int | None = None
    fps: float | None = None
    reference_fps: float | None = None
    """Of real videos, where it is another: a model's own frames are taken as they are."""
    size: tuple[int, int] | None = None
    """Height, width."""
    frechet_samples: int | None = None
    inception_samples: int | None = None


UCF101 = Protocol(num_frames=16, reference_fps=3.0, frechet_samples=2048, inception_samples=10_000)
"""The paper's (section 5.1): clips of 16 frames at 3 Hz, FVD on 2,048 videos and IS on 10,000; see `ucf101`."""


@dataclass(frozen=True, eq=False)
class Tools:
    """What measures: an optical flow, and networks where they were given."""

    flow: Flow
    features: ImageFeatures | None = None
    samples: Mapping[str, Callable[[np.ndarray], np.ndarray]] = field(default_factory=dict)
    """Sample metric -> its network: `FVD`, `VideoMAE Frechet distance`, `IS`; one with a `distance` has its own."""


def measure_video(
    path: Path,
    protocol: Protocol,
    tools: Tools,
    *,
    image: Path | None = None,
    prompt: str | None = None,
    target_motion: float | None = None,
    reference: bool = False,
) -> dict[str, Any]:
    """Everything that can be measured of one video, as plain values; of a `reference` what it is compared by.

    Raises MediaError for a video or image that cannot be read, or is too short.
    """
    fps = protocol.fps or (protocol.reference_fps if reference else None)
    clip = read_video(path, num_frames=protocol.num_frames, fps=fps, size=protocol.size)
    frames = clip.frames
    row: dict[str, Any] = {"frames": len(frames), "fps": clip.fps, "size": list(frames.shape[1:3])}
    row["motion_score"] = motion_score(frames, flow=tools.flow).value
    if not reference:
        row["dynamic_degree"] = float(dynamic_degree(frames, clip.fps, tools.flow))
        row["temporal_consistency"] = temporal_consistency(frames, tools.features)
        row["warping_error"] = warping_error(frames, tools.flow)
        row["flicker"] = flicker(frames) if len(frames) > 2 else None
        if image is not None:
            seen = np.asarray(fit_image(load_image(image), *frames.shape[1:3]).convert("RGB"))  # by the model, that is
            row["image_alignment"] = image_alignment(frames, seen, tools.features)
            row["first_frame_psnr"] = min(first_frame_psnr(frames, seen), 60.0)
        if prompt and tools.features is not None and tools.features.reads:
            row["prompt_alignment"] = float((tools.features(frames) @ tools.features.text(prompt)).mean())
        if target_motion is not None:
            row["ms_err"] = abs(target_motion - row["motion_score"])
    row["features"] = {
        name: network(frames).tolist() for name, network in tools.samples.items() if not (reference and name == "IS")
    }
    return row


METRICS = {
    "motion_score": "motion score (px at 800x450, summed over the pairs)",
    "ms_err": "MS-Err (px)",
    "dynamic_degree": "dynamic degree (share of videos)",
    "temporal_consistency": "temporal consistency",
    "image_alignment": "image alignment",
    "first_frame_psnr": "first frame (dB)",
    "prompt_alignment": "prompt alignment",
    "flicker": "flicker (grey levels)",
    "warping_error": "warping error (grey levels)",
}


def summarize(
    videos: Sequence[Mapping[str, Any]],
    references: Sequence[Mapping[str, Any]],
    protocol: Protocol,
    networks: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Means with intervals over videos, and the sample metrics with their standard errors.

    Of more videos than the protocol has the first are taken. A sample metric whose network has a `distance` is what
    that says; its standard error is still by the bootstrap of the closed form.
    """
    found: dict[str, Any] = {}
    for name in METRICS:
        values = [row[name] for row in videos if row.get(name) is not None]
        if values:
            found[name] = mean_of(values).record
    if references:
        found["motion_score_reference"] = mean_of([row["motion_score"] for row in references]).record
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
        record["note"] = f"{estimate.samples} videos, the protocol has {wanted}: not to be compared with its numbers"
    return record
