"""The plain arguments of a pipeline's call, by name: their types and defaults, read from its signature."""

import inspect
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin

from unleak.data.reading import parse_json

__all__ = ["OPTIONS", "Call", "Parameter"]

OPTIONS = {
    "height": ("height",),
    "width": ("width",),
    "num_frames": ("num_frames", "frames"),
    "steps": ("num_inference_steps",),
    "fps": ("fps", "frame_rate", "target_fps"),
    "guidance": ("guidance_scale",),
    "min_guidance": ("min_guidance_scale",),
    "max_guidance": ("max_guidance_scale",),
    "noise_aug": ("noise_aug_strength",),
    "prompt": ("prompt",),
    "negative_prompt": ("negative_prompt",),
}
"""Our word for an argument -> the names it goes by in diffusers."""

# Plain values too, but what they decide is decided elsewhere: the schedule by the start and the steps, the rest by us.
_NOT_OFFERED = {
    "sigmas": "the start and --steps make the schedule",
    "timesteps": "the start and --steps make the schedule",
    "num_videos_per_prompt": "one photo gives one video; run it again with another --seed",
    "num_images_per_prompt": "one photo gives one video; run it again with another --seed",
    "output_type": "the frames are needed as they are",
    "return_dict": "the frames are needed as they are",
    "callback_on_step_end_tensor_inputs": "it serves programs",
}
_FLAGS = {"size": ("height", "width"), "guidance": ("min_guidance", "max_guidance")}


@dataclass(frozen=True)
class Parameter:
    """An argument that takes plain values: one of `types`, or a list of one of `lists`."""

    name: str
    default: Any
    types: frozenset[type]
    lists: frozenset[type]

    def __str__(self) -> str:
        kinds = [kind.__name__ for kind in _PLAIN if kind in self.types]
        return f"{self.name} ({' or '.join(kinds + [f'list of {k.__name__}' for k in _PLAIN if k in self.lists])})"

    def parse(self, text: str) -> Any:
        """Read `text` as a value of this argument, a list as JSON; ValueError names what is expected."""
        if self.lists and text.lstrip().startswith("["):
            try:
                values = parse_json(text, list, self.name)
            except ValueError:
                values = None
            if isinstance(values, list):
                for kind in (kind for kind in _PLAIN if kind in self.lists):
                    found = [_as(kind, value) for value in values]
                    if values and all(value is not None for value in found):
                        return found
        for kind in (kind for kind in _PLAIN if kind in self.types):
            value = _read(kind, text)
            if value is not None:
                return value
        raise ValueError(f"{self.name}={text}: this takes {str(self).partition(' ')[2].strip('()')}")


@dataclass(frozen=True)
class Call:
    """The plain arguments of one pipeline class by name."""

    pipeline: str
    parameters: Mapping[str, Parameter]
    names: frozenset[str]
    """Of all arguments, plain or not."""

    @classmethod
    def of(cls, pipeline: type) -> "Call":
        """Read the signature of `pipeline.__call__`; nothing is run."""
        signature = inspect.signature(pipeline.__call__).parameters
        plain = {}
        for name, parameter in signature.items():
            kinds, lists = _plain_types(parameter.annotation)
            if kinds | lists and name not in _NOT_OFFERED and name != "self":
                default = None if parameter.default is inspect.Parameter.empty else parameter.default
                plain[name] = Parameter(name, default, kinds, lists)
        return cls(pipeline.__name__, plain, frozenset(signature) - {"self"})

    def name(self, option: str) -> str | None:
        """Return the name that this pipeline has for our `option`; None if it has no such argument."""
        return next((name for name in OPTIONS[option] if name in self.parameters), None)

    def default(self, option: str) -> Any:
        """Return the pipeline's own value of `option`; None if it has no such argument, or decides while running."""
        name = self.name(option)
        return None if name is None else self.parameters[name].default

    def need(self, option: str, flag: str) -> str:
        """`name`, or ValueError: the pipeline cannot do what --flag asks."""
        name = self.name(option)
        if name is None:
            raise ValueError(f"--{flag}: a {self.pipeline} has no {' or '.join(OPTIONS[option])}; leave it out")
        return name

    def set(self, text: str) -> tuple[str, Any]:
        """Read `NAME=VALUE` as argument and value; ValueError for what is no plain argument of this pipeline."""
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ValueError(f"--set {text}: give NAME=VALUE, such as {self._example()}=VALUE")
        for option, names in OPTIONS.items():
            if name in names and name in self.names:
                flag = next((flag for flag, options in _FLAGS.items() if option in options), option)
                raise ValueError(f"--set {text}: give --{flag.replace('_', '-')} for it")
        if name in _NOT_OFFERED and name in self.names:
            raise ValueError(f"--set {text}: {_NOT_OFFERED[name]}")
        if name not in self.parameters:
            why = "takes no text or number" if name in self.names else "is unknown"
            offered = [name for name in self.parameters if not any(name in names for names in OPTIONS.values())]
            raise ValueError(
                f"--set {text}: {name} {why}; a {self.pipeline} has {', '.join(offered) or 'nothing to set'}"
            )
        try:
            return name, self.parameters[name].parse(value)
        except ValueError as error:
            raise ValueError(f"--set {error}") from None

    def _example(self) -> str:
        return next((n for n in self.parameters if not any(n in names for names in OPTIONS.values())), "NAME")


_PLAIN = (bool, int, float, str)  # in this order a text is read: 1 is a number where both a number and a text will do


_NAMED: dict[str, Any] = {kind.__name__: kind for kind in _PLAIN}
_NAMED |= {f"list[{kind.__name__}]": types.GenericAlias(list, (kind,)) for kind in _PLAIN}


def _plain_types(annotation: Any) -> tuple[frozenset[type], frozenset[type]]:
    """Return the plain types in an annotation, and those of which it takes lists; tensors are not plain."""
    if isinstance(annotation, str):  # a module that postpones its annotations
        annotation = Union[*(_NAMED.get(name.strip(), object) for name in annotation.split("|"))]
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [_plain_types(part) for part in get_args(annotation)]
        return frozenset().union(*(part[0] for part in parts)), frozenset().union(*(part[1] for part in parts))
    if get_origin(annotation) is list:
        return frozenset(), frozenset(kind for kind in get_args(annotation) if kind in _PLAIN)
    return frozenset({annotation} & set(_PLAIN)) if isinstance(annotation, type) else frozenset(), frozenset()


def _read(kind: type, text: str) -> Any:
    """Read a text as a value of `kind`; None if it is none."""
    if kind is str:
        return text
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower())
    try:
        value = int(text) if kind is int else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _as(kind: type, value: Any) -> Any:
    """Return a value from JSON if it is of `kind`, else None."""
    if kind is float:
        return float(value) if type(value) in (int, float) and math.isfinite(value) else None
    return value if type(value) is kind else None
