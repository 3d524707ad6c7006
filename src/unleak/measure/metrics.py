"""The metrics of the package, each one function; `unleak.measure.registry` lists them for everyone else."""

import numpy as np

from unleak.measure import consistency, fidelity
from unleak.measure.registry import metric
from unleak.measure.video import Video

MOST_DB = 60.0  # a first frame that equals the photo has an infinite ratio, which no mean can hold


@metric(
    "motion_score", label="motion score", unit="px at 800x450, summed over the pairs", by="flow", of_references=True
)
def motion_score(video: Video) -> float:
    """Sum over the pairs of frames of the mean optical flow, as in the paper; it counts any change, also flicker."""
    return video.motion.value


@metric("ms_err", label="MS-Err", unit="px", needs=["target_motion"], better="lower", studies=["evaluate"])
def motion_error(video: Video) -> float:
    """Distance between the motion score and the one that was asked for."""
    assert video.target_motion is not None
    return abs(video.target_motion - video.motion.value)


@metric("camera_speed", label="camera speed", unit="px of the video per frame", studies=["compare"])
def camera_speed(video: Video) -> float:
    """Median speed of the picture as a whole; 0 where no camera motion explains the video."""
    explained = video.camera[np.isfinite(video.camera).all(1), :2]
    return float(np.hypot(*np.median(explained, 0))) if len(explained) else 0.0


@metric("dynamic_degree", label="dynamic degree", unit="share of videos", by="flow", studies=["evaluate"])
def dynamic_degree(video: Video) -> float:
    """1 for a video that VBench's rule calls dynamic, 0 for any other."""
    return float(consistency.dynamic_degree(video.frames, video.fps, video.flow, flows=video.flows))


@metric("temporal_consistency", label="temporal consistency", better="higher", by="features", studies=["evaluate"])
def temporal_consistency(video: Video) -> float:
    """Likeness of adjacent frames, 1 for a still: read it beside the motion score."""
    return consistency.temporal_consistency(video.frames, video.seen)


@metric(
    "image_alignment", label="image alignment", needs=["image"], better="higher", by="features", studies=["evaluate"]
)
def image_alignment(video: Video) -> float:
    """Likeness of each frame to the conditioning image."""
    assert video.image is not None
    return consistency.image_alignment(video.frames, video.image, video.seen)


@metric("first_frame_psnr", label="first frame", unit="dB", needs=["image"], better="higher")
def first_frame_psnr(video: Video) -> float:
    """Peak signal-to-noise ratio of the first frame against the conditioning image, 60 dB at most."""
    assert video.image is not None
    return min(fidelity.first_frame_psnr(video.frames, video.image), MOST_DB)


@metric("prompt_alignment", label="prompt alignment", needs=["prompt", "reader"], better="higher", studies=["evaluate"])
def prompt_alignment(video: Video) -> float:
    """Mean cosine of the features of each frame and of the prompt."""
    assert video.seen is not None
    return float((video.seen(video.frames) @ video.reader.text(video.prompt)).mean())


@metric("flicker", label="flicker", unit="grey levels", better="lower")
def flicker(video: Video) -> float | None:
    """Second difference in time of the mean colour; None for fewer than three frames."""
    return fidelity.flicker(video.frames) if len(video.frames) > 2 else None


@metric("sharpness", label="sharpness", unit="last frame against the first")
def sharpness(video: Video) -> float:
    """Sharpness of the last frame relative to the first: below 1 the video blurs, above 1 it dissolves into noise."""
    sharp = fidelity.sharpness(video.frames)
    return float(sharp[-1] / sharp[0]) if sharp[0] else 1.0


@metric("warping_error", label="warping error", unit="grey levels", better="lower", studies=["evaluate"])
def warping_error(video: Video) -> float | None:
    """Difference between each frame and the one before it moved along the optical flow; None if all was covered."""
    return consistency.warping_error(video.frames, video.flow, flows=video.flows)
