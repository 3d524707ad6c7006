"""From a pipeline to its seam, or to the reason why it has none."""

from inspect import signature
from typing import Any

from unleak.attach.modular import is_modular
from unleak.attach.seams.seam import Seam
from unleak.attach.seams.table import REFUSED, SEAMS

__all__ = ["refusal_of", "register_seam", "seam_of", "seam_of_class"]


def register_seam(pipeline: str, seam: Seam) -> None:
    """Make every pipeline whose class, or a base of it, is named `pipeline` attachable. ValueError if one is."""
    if pipeline in SEAMS:
        raise ValueError(f"{pipeline} has a seam already: to change it for one pipeline, set pipe.unleak_seam.")
    SEAMS[pipeline] = seam


def seam_of(pipe: Any) -> Seam:
    """Find this pipeline's own `unleak_seam`, or the seam of its class or the nearest base; ValueError without."""
    if (own := getattr(pipe, "unleak_seam", None)) is not None:
        assert isinstance(own, Seam)
        return own
    return seam_of_class(type(pipe))


def seam_of_class(pipeline: type) -> Seam:
    """Find the seam that a pipeline class carries, or that of its nearest base; ValueError without."""
    if isinstance(own := getattr(pipeline, "unleak_seam", None), Seam):
        return own
    for base in pipeline.__mro__:
        if base.__name__ in SEAMS:
            return SEAMS[base.__name__]
        if base.__name__ in REFUSED:
            raise ValueError(f"unleak cannot attach to {pipeline.__name__}: {REFUSED[base.__name__]}.")
    if is_modular(pipeline):
        raise ValueError(
            f"unleak cannot attach to {pipeline.__name__}: it knows no block of this modular pipeline that draws the"
            " initial noise. Use the ordinary pipeline class of the same model, or register a seam whose `draws` names"
            " that block: see help('unleak.attach.seams')."
        )
    if makes := _other_than_videos_of_an_image(pipeline):
        raise ValueError(
            f"unleak cannot attach to {pipeline.__name__}: it makes {makes}, and unleak is for image-to-video"
            " pipelines, whose videos stand still because of their conditioning image."
        )
    raise ValueError(
        f"unleak cannot attach to {pipeline.__name__}; it knows {', '.join(sorted(SEAMS))}. To add one takes a dozen"
        " lines: see help('unleak.attach.seams') for an example."
    )


def _other_than_videos_of_an_image(pipeline: type) -> str | None:
    """Return what a diffusers pipeline makes instead of videos of an image; None if it may make those."""
    if not pipeline.__module__.startswith("diffusers."):
        return None
    names = set(signature(pipeline.__call__).parameters)
    if not names & {"num_frames", "video", "video_length", "frames"}:
        return "images of an image" if names & {"image", "images"} else "images of a text (text-to-image)"
    pictures = [name for name in names if ("image" in name or "video" in name) and not name.startswith("num_")]
    return None if pictures else "videos of a text (text-to-video)"


def refusal_of(pipeline: str) -> str | None:
    """Return why the pipeline class of this name is refused; None if it is not."""
    return REFUSED.get(pipeline)
