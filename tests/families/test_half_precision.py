"""The families in bfloat16 and float16 on a CPU: the network's error, whole calls, fixes and strategies."""

from collections.abc import Iterator
from functools import wraps
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

import unleak
from tests.attach.guided import GUIDED
from tests.attach.watch import all_tiny
from tests.tiny.animate_anything import call as call_animate_anything
from tests.tiny.animate_anything import tiny_animate_anything
from tests.tiny.model import Tiny

ALL = {tiny.name: tiny for tiny in all_tiny()}
ALL["animate-anything"] = Tiny("animate-anything", tiny_animate_anything, call_animate_anything, denoiser="unet")
PAPER = ("svd", "dynamicrafter", "videocrafter1", "animate-anything", "pia")
OTHERS = ("wan21", "wan22", "wan22-5b", "ltx", "cogvideox-ddim", "hunyuan-concat", "hunyuan-replace")
ERROR = {torch.bfloat16: 4e-2, torch.float16: 4e-3}
"""Most that a prediction in half precision may differ from the same in float32: relative L2 norm, tiny weights."""


@pytest.fixture(autouse=True)
def plain_kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """Without oneDNN where latents are two columns wide: its bfloat16 convolution over three axes is wrong where the
    result has a single column (torch 2.13, Wan's and HunyuanVideo's patches at these sizes, at none of theirs)."""
    with torch.backends.mkldnn.flags(enabled=request.node.callspec.params["name"] in PAPER):
        yield


each = pytest.mark.parametrize("name", [*PAPER, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
both = pytest.mark.parametrize("dtype", ERROR, ids=lambda dtype: str(dtype).removeprefix("torch."))


def cast(value: Any, dtype: torch.dtype) -> Any:
    """Latents and embeddings in half precision; times and frame rates stay as they are, as in the pipelines."""
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() and value.ndim > 1 else value
    if isinstance(value, dict):
        return {key: cast(entry, dtype) for key, entry in value.items()}
    return type(value)(cast(entry, dtype) for entry in value) if isinstance(value, list | tuple) else value


def loaded(part: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """A network as it is loaded in half precision: some keep a few of their layers in float32."""
    if not hasattr(part, "save_pretrained"):
        return part.to(dtype)
    with TemporaryDirectory() as folder:
        part.save_pretrained(folder)
        return type(part).from_pretrained(folder, torch_dtype=dtype).eval().requires_grad_(False)


def half(name: str, dtype: torch.dtype) -> Any:
    """The pipeline in half precision, which also takes embeddings that a test gives in float32."""
    pipe = ALL[name].build()
    networks = {key: part for key, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    pipe.register_modules(**{key: loaded(part, dtype) for key, part in networks.items()})
    cls = type(pipe)

    @wraps(cls.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return cls.__call__(self, *args, **cast(kwargs, dtype))

    pipe.__class__ = type(cls.__name__, (cls,), {"__call__": call})
    return pipe


def first(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output.sample


@both
@each
def test_a_prediction_is_that_of_float32_but_for_rounding(name: str, dtype: torch.dtype) -> None:
    pipe, seen = ALL[name].build(), []
    network = getattr(pipe, ALL[name].denoiser)
    hook = network.register_forward_pre_hook(lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
    ALL[name].call(pipe, num_inference_steps=2)
    hook.remove()
    args, kwargs = seen[0]
    with torch.no_grad():
        exact = first(network(*args, **kwargs))
        ours = first(loaded(network, dtype)(*cast(args, dtype), **cast(dict(kwargs), dtype)))
    assert ours.dtype == dtype
    error = ((ours.float() - exact).norm() / exact.norm()).item()
    assert 0 < error < ERROR[dtype]


def fitting(pipe: Any) -> list[Any]:
    """The strategies that can be attached to this pipeline."""
    found = []
    for strategy in (unleak.LowPass(0.5, (0.0, 0.0)), unleak.ConditionNoise(0.1), unleak.GuidanceInterval(high="1.0T")):
        try:
            unleak.apply(pipe, strategies=[strategy])
            found.append(strategy)
        except ValueError as error:
            assert "cannot be attached" in str(error)  # noqa: PT017 - what does not fit says so
    return found


@both
@each
@pytest.mark.filterwarnings("ignore::unleak.attach.plan.UnleakWarning")
@pytest.mark.parametrize(("steps", "init"), [(9, "unit"), (4, "standard")])
def test_a_call_with_every_fix_that_fits(name: str, dtype: torch.dtype, steps: int, init: str) -> None:
    plain = ALL[name].call(half(name, dtype), num_inference_steps=steps, **GUIDED.get(name, {}))
    pipe = half(name, dtype)
    strategies = fitting(pipe)
    unleak.remove(pipe)
    unleak.apply(pipe, start="0.9T", init=init, strategies=strategies)
    fixed = ALL[name].call(pipe, num_inference_steps=steps, **GUIDED.get(name, {}))
    assert torch.isfinite(plain).all()
    assert torch.isfinite(fixed).all()
    assert fixed.shape == plain.shape
    assert not torch.equal(fixed, plain)
