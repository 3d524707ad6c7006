"""Changes that other libraries make to a pipeline hold beside a start and a strategy."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import unleak
from tests.attach.watch import all_tiny
from tests.tiny.modular import MODULAR

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::unleak.attach.plan.UnleakWarning")]

ALL = {tiny.name: tiny for tiny in (*all_tiny(), *MODULAR)}
STARTS = {"pia": "820"}


def free_u(pipe: Any) -> None:
    pipe.unet.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)


def deep_cache(pipe: Any) -> None:
    found = pytest.importorskip("DeepCache")
    helper = found.DeepCacheSDHelper(pipe=pipe)
    helper.set_params(cache_interval=2, cache_branch_id=0)
    helper.enable()


def layerwise_casting(pipe: Any) -> None:
    pipe.transformer.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)


def group_offload(pipe: Any) -> None:
    from diffusers.hooks import apply_group_offloading

    device = torch.device("cpu")  # the hooks are those of an accelerator
    apply_group_offloading(pipe.transformer, onload_device=device, offload_device=device, offload_type="leaf_level")


def int8_weights(pipe: Any) -> None:
    torchao = pytest.importorskip("torchao.quantization")
    torchao.quantize_(pipe.transformer, torchao.Int8WeightOnlyConfig())


def first_block_cache(pipe: Any) -> None:
    from diffusers import FirstBlockCacheConfig

    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.2))


def other_guider(pipe: Any) -> None:
    from diffusers import AdaptiveProjectedGuidance

    guider = AdaptiveProjectedGuidance(guidance_scale=3.0)
    if hasattr(pipe, "update_components"):
        pipe.update_components(guider=guider)
    else:
        pipe.guider = guider


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("pia", free_u),
        ("pia", deep_cache),
        ("wan21", layerwise_casting),
        ("wan21", group_offload),
        ("wan21", int8_weights),
        ("wan21", first_block_cache),
        ("hunyuan15", other_guider),
        ("modular-wan21", other_guider),
    ],
    ids=lambda one: one if isinstance(one, str) else one.__name__,
)
def test_it_holds_beside_a_start_and_a_strategy(name: str, change: Callable[[Any], None]) -> None:
    def made(pipe: Any) -> torch.Tensor:
        torch.manual_seed(0)
        return ALL[name].call(pipe, num_inference_steps=9)

    pipe = ALL[name].build()
    change(pipe)
    before = made(pipe)
    assert torch.equal(made(unleak.apply(pipe, start="1.0T")), before)
    unleak.apply(pipe, start=STARTS.get(name, "sigma=0.8"), init="unit", strategies=unleak.Compress(40))
    once = made(pipe)
    assert torch.isfinite(once).all()
    assert not torch.equal(once, before)
    assert torch.equal(made(pipe), once)
    assert torch.equal(made(unleak.remove(pipe)), before)
