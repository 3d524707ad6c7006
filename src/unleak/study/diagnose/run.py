"""Does this model lose motion to its image, or is something else the cause? What `unleak diagnose` does."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from unleak.study.diagnose.examine import Effort, check_examined, examine, known_clips, parse_levels, real_clips
from unleak.study.diagnose.leakage import Diagnosis
from unleak.study.listener import Listener
from unleak.study.sweep import check_measurable
from unleak.zoo.classes import pipeline_class
from unleak.zoo.hub import pick_device
from unleak.zoo.registry import ModelSpec, find_model

__all__ = ["FULL", "QUICK", "diagnose"]


FULL = Effort()
QUICK = Effort(4, 1, ("0.94T", "0.78T", "0.60T"), ("restart",), 10, pipeline=False)
"""An answer in about 30 s from the nano model on two cores; its intervals are wide."""


def diagnose(
    model: Any = "nano",
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

    model: a name that `unleak models` lists, a folder, a Hub id, or a loaded pipeline.
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
    listener, loading = listener or Listener(), loading or Loading()
    source, spec = _source(videos, photos), find_model(model)
    check_measurable()
    fields = vars(request or Request.of(**asked))
    settings = Settings.for_model(spec, Request(**{**fields, **_PLAIN, "seed": seed}))
    device, drawn = _checked(spec, settings, loading, mask)
    usual = QUICK if quick else FULL
    effort = replace(
        usual,
        clips=clips or usual.clips,
        seeds=seeds or usual.seeds,
        starts=parse_levels(start, spec) if start else usual.starts,
        steps=fields["steps"] or usual.steps,
    )
    listener.note(f"diagnosing {spec.name} on {effort.clips} clips from {len(effort.starts)} noise levels")
    rate = fields["fps"] or settings.fps
    if isinstance(source, Path):
        frames, scenes = known_clips(source, settings, count=effort.clips, seed=seed % 2**32)
    else:
        reading, scenes = decoding or Decoding(default_workers()), None
        frames = real_clips(source, settings, count=effort.clips, fps=rate, decoding=reading, listener=listener)
    with loading.advising(spec, settings, device):
        return examine(
            Model.given_or_loaded(model, spec, loading, device=device, say=listener.note).pipe,
            spec,
            settings,
            frames,
            effort=effort,
            scenes=scenes,
            mask=drawn,
            seed=seed,
            batch_size=batch_size,
            fps=None if isinstance(source, Path) else rate,
            photos=_files(source, effort.clips),
            loras=loading.record["loras"],
            listener=listener,
            about={
                "source": str(photos) if photos is not None else ", ".join(map(str, _listed(videos))),
                **({} if mask is None else {"mask": str(mask)}),
                **loading.record,
                "versions": versions(),
                **(about or {}),
            },
        )


_PLAIN: dict[str, Any] = {"start": Start.fraction(1.0), "motion": None, "strategies": ()}


def _listed(videos: str | Path | Sequence[str | Path]) -> list[str | Path]:
    return [videos] if isinstance(videos, str | Path) else list(videos)


def _source(videos: str | Path | Sequence[str | Path], photos: str | Path | None) -> Path | list[Path]:
    """Return the photos (a path) or the videos (a list); ValueError for both, none, and what is not there."""
    sources = _listed(videos)
    if bool(sources) == (photos is not None):
        raise ValueError(
            "give --videos DIR (real clips that move) or --photos DIR (to make clips of known motion), one of them"
        )
    if photos is None:
        return find_videos(sources)
    if not Path(photos).exists():
        raise ValueError(f"--photos {photos}: no such file or folder; give a photo, or a folder of photos")
    find_images([photos])
    return Path(photos)


def _checked(spec: ModelSpec, settings: Settings, loading: Loading, mask: str | Path | None) -> tuple[Any, Any]:
    """Return the device and the mask; ValueError for what this model or the device cannot do."""
    check_examined(spec, settings)
    device = pick_device(loading.device)
    loading.check(spec, device)
    if loading.offload in ("sequential", "group"):
        raise ValueError(f"--offload {loading.offload}: a diagnosis runs the networks one by one; give model, or none")
    drawn = None if mask is None else load_mask(Path(mask))
    if drawn is not None:
        check_mask(Call.of(pipeline_class(spec.pipeline)), drawn)
    return device, drawn


def _files(source: Path | list[Path], most: int) -> list[Path]:
    """Return the photos that the clips are made of."""
    if not isinstance(source, Path):
        return []
    return [source] if source.is_file() else find_images([source])[:most]
