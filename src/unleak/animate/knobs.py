"""The arguments of each model's own that change how much it moves, beside a start: what they mean, and their values."""

from dataclasses import dataclass
from typing import Any

from unleak.animate.call import Call
from unleak.families.spec import ModelSpec
from unleak.zoo.classes import pipeline_class

__all__ = ["KNOBS", "Knob", "knobs"]

KNOBS = {
    "motion_bucket_id": "how much motion the model is asked for: 1 to 255, more is more",
    "motion_strength": "how much motion the model is asked for: from 0, more is more",
    "motion_score": "how much motion the prompt asks for, more is more",
    "motion_scale": "0 to 2 little to much motion, 3 to 5 the same as a loop, 6 to 8 with another style",
    "motion_speed": "speed of the motion relative to real time: below 1 is slow motion",
    "fps": "frame rate the model is given: a lower one asks for larger steps between frames",
    "frame_rate": "frame rate the model is given: a lower one asks for larger steps between frames",
    "frame_stride": "frames of the training video between two frames: more asks for larger steps",
    "noise_aug_strength": "noise on the photo: more frees the video from it, and blurs it",
    "image_cond_noise_scale": "noise on the photo's latents: more frees the video from it",
    "image_noise_sigma_min": "least noise on the photo's latents: more frees the video from it",
    "image_noise_sigma_max": "most noise on the photo's latents: more frees the video from it",
    "image_crf": "compression of the photo, 0 for none: a photo as compressed as a video's frame moves more",
    "strength": "how firmly the first frame is the photo: below 1 frees the video from it",
    "guidance_scale": "guidance: a high one keeps to the photo and the prompt, a low one moves more freely",
    "guidance_scale_2": "guidance of the expert for low noise levels",
}
"""Argument of a pipeline's call -> what it does to the motion."""


_OPTIONS = dict.fromkeys(("fps", "frame_rate"), "--fps") | {
    "noise_aug_strength": "--noise-aug",
    "guidance_scale": "--guidance",
}


@dataclass(frozen=True)
class Knob:
    """One argument of a model, its meaning, and the value it has if nobody says."""

    name: str
    meaning: str
    default: Any

    @property
    def option(self) -> str:
        """The option of the command line that sets it."""
        return _OPTIONS.get(self.name, f"--set {self.name}=")

    @property
    def text(self) -> str:
        """The knob in a line."""
        default = "the model decides" if self.default is None else f"by default {self.default}"
        return f"{self.option}: {self.meaning}; {default}"


def knobs(spec: ModelSpec) -> list[Knob]:
    """Return the knobs that this model's pipeline has."""
    call = Call.of(pipeline_class(spec.pipeline))
    defaults = {name: call.parameters[name].default for name in KNOBS if name in call.parameters} | dict(spec.defaults)
    return [Knob(name, meaning, defaults[name]) for name, meaning in KNOBS.items() if name in call.parameters]
