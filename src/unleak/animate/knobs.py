"""The arguments of a model's call that change how much the video moves, beside the start: meaning and value."""

from dataclasses import dataclass
from typing import Any

from unleak.animate.call import Call
from unleak.families.registry import families
from unleak.families.spec import ModelSpec
from unleak.zoo.classes import pipeline_class

__all__ = ["Knob", "knobs", "meanings"]

_COMMON = {
    "fps": "frame rate the model is given: a lower one asks for larger steps between frames",
    "frame_rate": "frame rate the model is given: a lower one asks for larger steps between frames",
    "noise_aug_strength": "noise on the photo: more frees the video from it, and blurs it",
    "image_noise_sigma_min": "least noise on the photo's latents: more frees the video from it",
    "image_noise_sigma_max": "most noise on the photo's latents: more frees the video from it",
    "strength": "how firmly the first frame is the photo: below 1 frees the video from it",
    "guidance_scale": "guidance: a high one keeps to the photo and the prompt, a low one moves more freely",
    "guidance_scale_2": "guidance of the expert for low noise levels",
}
"""Argument of the calls of several families -> what it does to the motion; those of one family are in its folder."""


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
        """Return the option of the command line that sets it."""
        return _OPTIONS.get(self.name, f"--set {self.name}=")

    @property
    def text(self) -> str:
        """Return the knob in a line."""
        default = "the model decides" if self.default is None else f"by default {self.default}"
        return f"{self.option}: {self.meaning}; {default}"


def meanings() -> dict[str, str]:
    """Return what each argument that changes the motion does, by name."""
    return {one.name: one.meaning for family in families() for one in family.arguments} | _COMMON


def knobs(spec: ModelSpec) -> list[Knob]:
    """Return the knobs that this model's pipeline has."""
    call, known = Call.of(pipeline_class(spec.pipeline)), meanings()
    return [
        Knob(name, meaning, spec.defaults.get(name, call.parameters[name].default))
        for name, meaning in known.items()
        if name in call.parameters
    ]
