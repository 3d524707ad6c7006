"""Does this model lose motion to its image, or is something else the cause? What `unleak diagnose` does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unleak.animate.call import Call
from unleak.animate.model import Loading, Model
from unleak.animate.record import versions
from unleak.animate.request import Request
from unleak.animate.sample import check_mask
from unleak.animate.settings import Settings
from unleak.core.start import Start
from unleak.data.decode_worker import Decoding, default_workers
from unleak.data.folder import find_images, find_videos
from unleak.data.mask import load_mask
from unleak.study.diagnose.examine import check_examined, examine, known_clips, parse_levels, real_clips
from unleak.study.diagnose.leakage import STARTS, TESTS, Diagnosis
from unleak.study.listener import Listener
from unleak.study.sweep import check_measurable
from unleak.zoo.classes import pipeline_class
from unleak.zoo.hub import pick_device
from unleak.zoo.registry import find_model

__all__ = ["FULL", "QUICK", "Effort", "diagnose"]


@dataclass(frozen=True)
class Effort:
    """How much a diagnosis measures."""

    clips: int
    seeds: int
    starts: Sequence[str]
    tests: Sequence[str]
    steps: int | None
    """Denoising steps below each start; None: as many as the model usually takes."""
    pipeline: bool
    """Whether the pipeline's own videos are measured too."""


FULL = Effort(8, 2, STARTS, TESTS, None, True)
QUICK = Effort(4, 1, ("0.94T", "0.78T", "0.60T"), ("restart",), 10, False)
"""An answer in about 30 s from the nano model on two cores; its intervals are wide."""


def diagnose(
    model: str = "nano",
    *,
    videos: str | Path | Sequence[str | Path] = (),
    photos: str | Path | None = None,
    quick: bool = False,
    start: str | None = None,
    clips: int | None = None,
    seeds: int | None = None,
    seed: int = 0,
    mask: str | Path | None = None,
    batch_size: int = 4,
    decoding: Decoding | None = None,
    loading: Loading | None = None,
    listener: Listener | None = None,
    about: Mapping[str, Any] | None = None,
    request: Request | None = None,
    **asked: Any,
) -> Diagnosis:
    """Tell whether a model loses motion to its conditioning image, and from which noise level on.

    Clips that move are noised and sampled on from there, with their first frame and without it: motion that can still
    be seen in the noise has to come back. Settings that make videos stand still are checked too.

    model: a name that `unleak models` lists, a folder, or a Hub id.
    videos: real videos that move: files, folders, patterns. Or photos: a photo or a folder of photos to make clips of
    known motion of, which adds the exact posterior as a yardstick. One of the two is needed.
    quick: fewer clips, levels and steps (`QUICK`); what is given beside it counts.
    start: levels to restart from, with commas: "0.94T,0.86T". clips, seeds: number of clips, and of noises for each.
    mask: a picture that is white where all clips move, for models that take one.
    request, or its fields as keywords: what is asked of the videos (`num_frames`, `height`, `prompt`, ...).
    loading: device, dtype, offloading and LoRAs. about: further plain values for the record.

    Raises ValueError, before the model is loaded, for what cannot be had, and afterwards if no clip moves. `save` of
    the result writes a page. Needs `pip install 'unleak[evaluate]'`.
    """
    listener, loading, effort = listener or Listener(), loading or Loading(), QUICK if quick else FULL
    sources = [videos] if isinstance(videos, str | Path) else list(videos)
    if bool(sources) == (photos is not None):
        raise ValueError(
            "give --videos DIR (real clips that move) or --photos DIR (to make clips of known motion), one of them"
        )
    pictures = Path(photos) if photos is not None else None
    if pictures is not None and not pictures.exists():
        raise ValueError(f"--photos {pictures}: no such file or folder; give a photo, or a folder of photos")
    found, spec = find_videos(sources), find_model(model)
    check_measurable()
    fields = {name: value for name, value in vars(request or Request.of(**asked)).items() if name != "start"}
    settings = Settings.for_model(spec, Request(**fields | {"start": Start.fraction(1.0), "seed": seed}))
    check_examined(spec, settings)
    picked = pick_device(loading.device)
    loading.check(spec, picked)
    if loading.offload in ("sequential", "group"):
        raise ValueError(f"--offload {loading.offload}: a diagnosis runs the networks one by one; give model, or none")
    drawn = None if mask is None else load_mask(Path(mask))
    if drawn is not None:
        check_mask(Call.of(pipeline_class(spec.pipeline)), drawn)
    starts = parse_levels(start, spec) if start else list(effort.starts)
    count, noises = clips or effort.clips, seeds or effort.seeds
    rate = fields["fps"] or settings.fps

    scenes, files = None, list[Path]()
    if pictures is not None:
        files = [pictures] if pictures.is_file() else find_images([pictures])[:count]
    listener.note(f"diagnosing {spec.name} on {count} clips from {len(starts)} noise levels")
    if pictures is not None:
        frames, scenes = known_clips(pictures, settings, count=count, seed=seed % 2**32)
    else:
        frames = real_clips(
            found,
            settings,
            count=count,
            fps=rate,
            decoding=decoding or Decoding(default_workers()),
            on_skipped=lambda reason: listener.failure(f"skipped {reason}"),
        )
    with loading.advising(spec, settings, picked):
        return examine(
            Model.load(spec, loading, device=picked, say=listener.note).pipe,
            spec,
            settings,
            frames,
            scenes=scenes,
            mask=drawn,
            starts=starts,
            seeds=noises,
            seed=seed,
            batch_size=batch_size,
            steps=fields["steps"] or effort.steps,
            tests=effort.tests,
            pipeline=effort.pipeline,
            fps=None if pictures else rate,
            photos=files,
            loras=loading.record["loras"],
            on_video=lambda done, of: listener.progress(done, of, "videos"),
            about={
                "source": str(pictures) if pictures else ", ".join(map(str, sources)),
                **({} if mask is None else {"mask": str(mask)}),
                **loading.record,
                "versions": versions(),
                **(about or {}),
            },
        )
