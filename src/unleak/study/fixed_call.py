"""Call a pipeline with everything fixed but the start, as a sweep and a search for a start do."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from unleak.animate.frames import frames_of
from unleak.animate.record import versions
from unleak.attach.apply import applied
from unleak.core.initial import InitialNoise
from unleak.core.start import Start
from unleak.zoo.hub import load

__all__ = ["FixedCall", "loaded"]

_OURS = {"generator": "seed", "output_type": "frames", "return_dict": "frames", "sigmas": "start"}
_FPS = 16.0  # Hz, where the pipeline does not say


def loaded(pipe: Any) -> Any:
    """Return the pipeline, loaded if it is what `unleak.load` takes: a name, a folder or a Hub id."""
    return load(pipe) if isinstance(pipe, str | Path) else pipe


@dataclass(frozen=True, eq=False)
class FixedCall:
    """`pipe` to be called with `inputs`, with the same noise whatever the start."""

    pipe: Any
    inputs: Mapping[str, Any]
    init: InitialNoise | str
    mode: str
    strategies: Sequence[Any]
    seed: int
    fps: float | None

    @classmethod
    def checked(
        cls,
        pipe: Any,
        inputs: Mapping[str, Any],
        *,
        init: InitialNoise | str,
        mode: str,
        strategies: Sequence[Any],
        seed: int,
        fps: float | int | None,
    ) -> "FixedCall":
        """Check the arguments; ValueError for those that the pipeline lacks or that we set. `fps` is handed on."""
        parameters = signature(type(pipe).__call__).parameters
        for name in sorted(_OURS.keys() & inputs.keys()):
            raise ValueError(f"{name}= is what unleak sets itself (see {_OURS[name]}): leave it out.")
        for name in inputs:
            if name not in parameters:
                raise ValueError(
                    f"{type(pipe).__name__} takes no {name}: its arguments are {', '.join([*parameters][1:])}."
                )
        rate = {"fps": fps} if fps is not None and "fps" in parameters else {}
        return cls(pipe, {**inputs, **rate}, init, mode, strategies, seed, None if fps is None else float(fps))

    @property
    def plan(self) -> dict[str, Any]:
        """Return what `apply` takes besides the start."""
        return {"init": self.init, "mode": self.mode, "strategies": self.strategies}

    @property
    def rate(self) -> float:
        """Return the frame rate of the videos, Hz."""
        parameters = signature(type(self.pipe).__call__).parameters
        usual = (parameters[name].default for name in ("fps", "frame_rate") if name in parameters)
        known = [self.fps, self.inputs.get("fps"), self.inputs.get("frame_rate"), *usual]
        return next((float(value) for value in known if isinstance(value, int | float)), _FPS)

    def frames(self, start: Start, **changes: Any) -> UInt8[np.ndarray, "f h w 3"]:
        """Return the video from `start`; `changes` go over the inputs. ValueError for more than one, and for NaN."""
        with applied(self.pipe, start=start, **self.plan):
            generator = torch.Generator("cpu").manual_seed(self.seed)
            output = self.pipe(**{**self.inputs, **changes}, generator=generator, output_type="np")
        if len(output.frames) != 1:
            raise ValueError(f"this is of one input, not of {len(output.frames)}: give one image and one prompt.")
        try:
            return frames_of(output)
        except FloatingPointError as error:
            raise ValueError(
                f"{error} in {self.pipe.dtype}; give a dtype of more range (bfloat16 or float32)."
            ) from error

    def about(self, function: str, **arguments: Any) -> dict[str, Any]:
        """Describe the call as plain values; calling `function` with `arguments` does it again."""
        given = {**arguments, "init": self.init, "mode": self.mode, "strategies": [*self.strategies] or None}
        given |= {"seed": self.seed, "fps": self.fps, **self.inputs}
        shown = [f"{name}={_shown(value)}" for name, value in given.items() if value is not None]
        pipe = self.pipe
        return {
            "seed": self.seed,
            "init": self.init if isinstance(self.init, str) else repr(self.init),
            "mode": self.mode,
            "strategies": [repr(one) for one in self.strategies],
            "settings": {name: _plain(value) for name, value in self.inputs.items()},
            "model": {"pipeline": type(pipe).__name__, "source": str(getattr(pipe.config, "_name_or_path", "") or "")},
            "device": str(pipe.device),
            "dtype": str(pipe.dtype).removeprefix("torch."),
            "versions": versions(),
            "reproduce": f"{function}(pipe, {', '.join(shown)})",
        }


def _plain(value: Any) -> Any:
    """Return an argument of a pipeline as JSON can hold it; pictures and tensors by shape and hash."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list() | tuple():
            return [_plain(item) for item in value]
        case Image.Image():
            sha256 = hashlib.sha256(value.tobytes()).hexdigest()
            return {"image": f"{value.width}x{value.height} {value.mode}", "sha256": sha256}
        case torch.Tensor():
            data = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
            sha256 = hashlib.sha256(data.tobytes()).hexdigest()
            return {"tensor": f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}", "sha256": sha256}
    return repr(value)


def _shown(value: Any) -> str:
    plain = _plain(value)
    return "..." if isinstance(plain, dict) else repr(value)
