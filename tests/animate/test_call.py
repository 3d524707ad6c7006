"""Plain arguments of a call, read off a signature."""

from collections.abc import Callable
from typing import Any, List, Optional, Union  # noqa: UP035

import diffusers
import pytest
import torch
from PIL import Image

from unleak.animate.call import Call
from unleak.attach.seams import SEAMS


class Pipeline:
    def __call__(
        self,
        image: Image.Image,
        prompt: str | list[str] | None = None,
        frames: int = 81,
        num_inference_steps: int = 50,
        guidance_scale: float = 5.0,
        eta: float = 0.0,
        layers: Optional[List[int]] = None,  # noqa: UP006, UP045
        decode_timestep: Union[float, List[float]] = 0.0,  # noqa: UP006, UP007
        binning: bool = True,
        style: str = "plain",
        sigmas: list[float] | None = None,
        num_videos_per_prompt: int | None = 1,
        latents: torch.Tensor | None = None,
        attention_kwargs: dict[str, Any] | None = None,
        callback: Callable[[int], None] | None = None,
        output_type: str = "pil",
    ):
        raise AssertionError("a signature is read, never called")


CALL = Call.of(Pipeline)


def test_what_is_plain_and_what_it_is_called():
    assert list(CALL.parameters) == [
        "prompt", "frames", "num_inference_steps", "guidance_scale", "eta", "layers", "decode_timestep", "binning",
        "style",
    ]  # fmt: skip
    assert (CALL.name("num_frames"), CALL.default("num_frames")) == ("frames", 81)
    assert (CALL.name("height"), CALL.name("fps")) == (None, None)
    with pytest.raises(ValueError, match=r"--size: a Pipeline has no height; leave it out"):
        CALL.need("height", "size")


def test_every_attachable_pipeline_of_diffusers_is_read():
    """Also where a module postpones its annotations, which are texts then."""
    classes = {name: getattr(diffusers, name, object) for name in SEAMS}
    whole = {name: cls for name, cls in classes.items() if issubclass(cls, diffusers.DiffusionPipeline)}
    calls = {name: Call.of(cls) for name, cls in whole.items()}
    assert len(calls) > 40
    for name, call in calls.items():
        assert call.name("steps") == "num_inference_steps", name
        assert {"prompt", "image"} & call.names, name
        assert "prompt" not in call.names or call.name("prompt"), name
    assert (calls["SanaWMPipeline"].name("height"), calls["SanaWMPipeline"].default("num_frames")) == ("height", 161)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("eta=1", 1.0),
        ("eta=-1e-3", -0.001),
        ("layers=[1, 2]", [1, 2]),
        ("decode_timestep=0.5", 0.5),
        ("decode_timestep=[0.5, 1]", [0.5, 1.0]),
        ("binning=False", False),
        ("style=a = b", "a = b"),
        ("style=", ""),
        ("style=[1]", "[1]"),
    ],
)
def test_values(text, value):
    name, found = CALL.set(text)
    assert name == text.partition("=")[0]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("eta", "give NAME=VALUE, such as eta=VALUE"),
        ("=1", "give NAME=VALUE"),
        ("eta=high", "eta=high: this takes float"),
        ("eta=nan", "this takes float"),
        ("layers=3", "this takes list of int"),
        ("layers=[1.5]", "this takes list of int"),
        ("layers=[]", "this takes list of int"),
        ("layers=[1", "this takes list of int"),
        ("layers=[[1]]", "this takes list of int"),
        ("binning=1", "this takes bool"),
        ("frames=9", "give --num-frames"),
        ("guidance_scale=3", "give --guidance"),
        ("sigmas=[1]", "the start and --steps make the schedule"),
        ("num_videos_per_prompt=2", "one photo gives one video"),
        ("output_type=np", "the frames are needed as they are"),
        ("latents=1", "latents takes no text or number; a Pipeline has eta, layers, decode_timestep, binning, style"),
        ("attention_kwargs={}", "takes no text or number"),
        ("callback=print", "takes no text or number"),
        ("self=1", "self is unknown"),
        ("__class__=1", "__class__ is unknown"),
        ("scheduler.config=1", "is unknown"),
    ],
)
def test_what_cannot_be_set(text, reason):
    with pytest.raises(ValueError, match="--set") as caught:
        CALL.set(text)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
