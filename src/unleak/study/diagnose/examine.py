"""A loaded model is diagnosed with the settings it is used with."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from unleak.animate.call import Call
from unleak.animate.sample import sample
from unleak.animate.settings import Settings
from unleak.data.decode_worker import ClipRequest, Decoding, read_clips
from unleak.data.image import MediaError, load_image
from unleak.data.synthetic import Motion, SyntheticClips
from unleak.families.registry import families, family_of
from unleak.families.view import view_of
from unleak.study.diagnose.leakage import STARTS, STILL, TESTS, Diagnosis, Scenes, measure_leakage, videos_of
from unleak.study.diagnose.stillness import Cause, causes
from unleak.study.listener import Listener
from unleak.zoo.classes import pipeline_class
from unleak.zoo.registry import ModelSpec

__all__ = ["Effort", "check_examined", "examine", "known_clips", "parse_levels", "real_clips", "suspects"]

Clips = UInt8[np.ndarray, "n f h w 3"]


def check_examined(spec: ModelSpec, settings: Settings) -> None:
    """Raise ValueError for a model that cannot be diagnosed, or not at the size in `settings`."""
    if family_of(spec.pipeline) is None:
        known = ", ".join(name for family in families() for name in family.views)
        raise ValueError(
            f"a {spec.pipeline} cannot be diagnosed: its family has no view; those that have one are {known}; `unleak"
            " sweep` measures any other"
        )
    if None in (settings.num_frames, settings.height, settings.width):
        raise ValueError(f"{spec.name} has no size of its own; give --num-frames and --size")


def parse_levels(text: str | None, spec: ModelSpec) -> list[str]:
    """Return the starts in a text with commas; None: the usual ones. ValueError for one that the model lacks."""
    if text is None:
        return list(STARTS)
    starts = [one.strip() for one in text.split(",") if one.strip()]
    if not starts:
        raise ValueError(f"start {text}: give one start or more, such as 0.94T,0.86T")
    if twice := next((one for one in starts if starts.count(one) > 1), None):
        raise ValueError(f"start {text}: {twice} is given twice")
    for one in starts:
        Settings.for_model(spec, start=one)
    return starts


def real_clips(
    videos: Iterable[Path],
    settings: Settings,
    *,
    count: int,
    fps: float | int,
    decoding: Decoding,
    listener: Listener,
) -> Clips:
    """Read a clip of each of the first `count` of `videos` that can be read, of the size in `settings`, at `fps` Hz.

    `listener` hears why a video was left out. Raises ValueError if none can be used.
    """
    assert settings.num_frames is not None
    assert settings.height is not None
    assert settings.width is not None
    size = settings.height, settings.width
    requests = (ClipRequest(path, settings.num_frames, fps, size) for path in videos)
    frames = []
    with closing(read_clips(requests, decoding=decoding)) as outcomes:
        for outcome in outcomes:
            if isinstance(outcome, MediaError):
                listener.failure(f"skipped {outcome}")
            elif outcome is not None:
                frames.append(outcome.frames)
            if len(frames) == count:
                break
    if not frames:
        raise ValueError("none of the videos can be used; see the reasons above")
    return np.stack(frames)


def known_clips(photos: Path, settings: Settings, *, count: int, seed: int = 0) -> tuple[Clips, Scenes]:
    """Make clips that pan right or left by 1/64 of their width a frame, and everything that each could have been.

    photos: a photo, or a folder of photos. Raises ValueError if there is none in it, MediaError if it cannot be read.
    """
    if photos.is_file():
        with TemporaryDirectory() as folder:
            load_image(photos).convert("RGB").save(Path(folder) / "photo.png")
            return known_clips(Path(folder), settings, count=count, seed=seed)
    assert settings.num_frames is not None
    assert settings.height is not None
    assert settings.width is not None
    side = max(settings.height, settings.width)
    speed = settings.width / 64
    law = [(Motion(speed), 0.2), (Motion(-speed), 0.2), (Motion(), 0.6)]
    made = SyntheticClips(photos, size=side, num_frames=settings.num_frames, seed=seed, length=count)
    top, left = (side - settings.height) // 2, (side - settings.width) // 2
    cut = slice(top, top + settings.height), slice(left, left + settings.width)
    scenes = [made.alternatives(k, [camera for camera, _ in law]).numpy()[:, :, *cut] for k in range(count)]
    alternatives = np.ascontiguousarray(np.stack(scenes))
    truth = np.stack([scene[k % 2] for k, scene in enumerate(alternatives)])
    return truth, Scenes(alternatives, np.array([share for _, share in law]))


@dataclass(frozen=True)
class Effort:
    """How much a diagnosis measures."""

    clips: int = 8
    seeds: int = 2
    """Noises for each clip."""
    starts: Sequence[str] = STARTS
    """Noise levels to sample on from."""
    tests: Sequence[str] = TESTS
    steps: int | None = None
    """Denoising steps below each start; None: as many as the model usually takes."""
    pipeline: bool = True
    """Whether the pipeline's own videos are measured too."""

    def videos(self, clips: int, *, oracle: bool) -> int:
        """Count the videos that are made of `clips` clips; `oracle`: with the exact posterior as a yardstick."""
        starts, seeds = len(self.starts), self.seeds
        return videos_of(clips, starts=starts, seeds=seeds, oracle=oracle, pipeline=self.pipeline, tests=self.tests)


def examine(
    pipe: Any,
    spec: ModelSpec,
    settings: Settings,
    clips: Clips,
    *,
    effort: Effort,
    scenes: Scenes | None = None,
    mask: Image.Image | None = None,
    seed: int = 0,
    batch_size: int = 4,
    fps: float | int | None = None,
    photos: Sequence[Path] = (),
    loras: Sequence[Mapping[str, Any]] = (),
    listener: Listener | None = None,
    about: Mapping[str, Any] | None = None,
) -> Diagnosis:
    """Measure the leakage, with the pipeline's own videos if the effort has them, and other causes in `about`.

    mask: where all clips move, for models that take one; it is scaled to their size. fps: the rate at which the clips
    were read, Hz; None where they were made. photos, loras: see `causes`. `listener` hears how many videos of how many
    are done. Raises ValueError if no clip moves.
    """
    told, numbers, listener = dict(settings.arguments), count(1), listener or Listener()
    total = effort.videos(len(clips), oracle=scenes is not None)
    fitted = None if mask is None else mask.resize((clips.shape[3], clips.shape[2]), Image.Resampling.NEAREST)

    def generate(image: UInt8[np.ndarray, "h w 3"], seed: int) -> UInt8[np.ndarray, "f h w 3"]:
        return sample(pipe, Image.fromarray(image), replace(settings, seed=seed), mask=fitted).frames

    listener.progress(0, total, "videos")
    done = measure_leakage(
        view_of(pipe, told if fitted is None else told | {"mask": fitted}),
        clips,
        starts=effort.starts,
        steps=effort.steps or settings.steps,
        seeds=effort.seeds,
        seed=seed,
        batch_size=batch_size,
        tests=effort.tests,
        scenes=scenes,
        generate=generate if effort.pipeline else None,
        on_video=lambda: listener.progress(next(numbers), total, "videos"),
        about={
            "model": {"name": spec.name, "source": spec.source, "revision": spec.revision, "pipeline": spec.pipeline},
            "settings": told,
            "fps": fps or settings.fps,
            "known_motion": scenes is not None,
            **(about or {}),
        },
    )
    other = _other_causes(done, pipe, spec, settings, fps=fps, photos=photos, loras=loras)
    done.about["other_causes"] = [vars(cause) for cause in other]
    return done


def _other_causes(done: Diagnosis, pipe: Any, spec: ModelSpec, settings: Settings, **known: Any) -> list[Cause]:
    """Check the other causes of stillness; `known` are arguments of `causes`."""
    usual = {name: one.default for name, one in Call.of(pipeline_class(spec.pipeline)).parameters.items()}
    amounts = [done.mean(test, "image", of="amount") for test in ("pipeline", "fresh")]
    return causes(
        pipe,
        settings.arguments,
        usual | dict(spec.defaults),
        motion=done.motion,
        still_below=STILL,
        steps=settings.steps,
        pipeline_amount=amounts[0].value if amounts[0] else None,
        unguided_amount=amounts[1].value if amounts[1] else None,
        **known,
    )


def suspects(done: Diagnosis) -> list[Cause]:
    """Return the other causes of stillness that are suspect here."""
    return [Cause(**one) for one in done.about["other_causes"] if one["state"] == "suspect"]
