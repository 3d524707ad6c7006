"""What people do to pipelines, done to attached ones: two transformers and a UNet stand for the others."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import unleak
from tests.attach.layouts import CLEAN, start_of, video
from tests.attach.watch import Watched, all_tiny
from tests.tiny.model import noise
from unleak.core.initial import Standard

pytestmark = pytest.mark.filterwarnings("ignore::unleak.attach.plan.UnleakWarning")

ALL = {tiny.name: tiny for tiny in all_tiny()}
NAMES = ["wan21", "cogvideox-ddim", "pia"]
STARTS = {"wan21": "sigma=0.8", "cogvideox-ddim": "820", "pia": "820", "wan22-5b": "sigma=0.8"}
each = pytest.mark.parametrize("name", NAMES)


def applied(name: str, **settings: Any) -> Any:
    return unleak.apply(ALL[name].build(), **{"start": STARTS[name], "init": "unit"} | settings)


def call(name: str, pipe: Any, **changes: Any) -> Tensor:
    return ALL[name].call(pipe, **{"num_inference_steps": 9} | changes)  # few steps keep to their own levels


def network(name: str, pipe: Any) -> torch.nn.Module:
    return getattr(pipe, ALL[name].denoiser)


@each
def test_deep_copies_and_two_threads(name: str) -> None:
    pipe, plain = applied(name), ALL[name].build()
    once, untouched = call(name, pipe), call(name, plain)
    twin = copy.deepcopy(pipe)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(call, name, p) for p in (twin, plain)]
    assert torch.equal(both[0].result(), once)
    assert torch.equal(both[1].result(), untouched)
    assert torch.equal(call(name, unleak.remove(twin)), untouched)
    assert torch.equal(call(name, pipe), once)


@each
def test_pickled_as_to_another_process(name: str) -> None:
    pipe = applied(name, strategies=[] if name == "pia" else [unleak.GuidanceInterval(high="0.9T")])
    there = pickle.loads(pickle.dumps(pipe))  # not yet called: transformers then hangs on to local functions
    once = call(name, pipe)
    assert torch.equal(call(name, there), once)
    assert type(unleak.remove(there)) is type(unleak.remove(pipe)) is type(ALL[name].build())
    assert torch.equal(call(name, there), call(name, pipe))


@each
def test_saved_loaded_and_made_from_another(name: str, tmp_path: Path) -> None:
    pipe = applied(name)
    plain_class = type(pipe).__mro__[1]
    once = call(name, pipe)
    made = plain_class.from_pipe(pipe)
    made.set_progress_bar_config(disable=True)
    assert type(made) is plain_class
    assert torch.equal(call(name, unleak.apply(made, start=STARTS[name], init="unit")), once)
    assert pipe.config == made.config
    pipe.scheduler.save_pretrained(tmp_path)
    pipe.scheduler = type(pipe.scheduler).from_pretrained(tmp_path)  # swapped after apply
    assert torch.equal(call(name, pipe), once)


@each
def test_a_call_that_breaks_off_leaves_no_trace(name: str) -> None:
    pipe = applied(name)
    scheduler, names, once = pipe.scheduler, set(vars(pipe)), call(name, pipe)
    names |= set(vars(pipe))

    def fail(*args: Any) -> None:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        call(name, pipe, callback_on_step_end=fail)
    assert pipe.scheduler is scheduler
    assert set(vars(pipe)) == names
    assert torch.equal(call(name, pipe), once)


@pytest.mark.parametrize("name", ["wan21", "cogvideox-ddim"])
def test_offloading(name: str) -> None:
    from accelerate import cpu_offload

    pipe = applied(name)
    once = call(name, pipe)
    cpu_offload(network(name, pipe), execution_device=torch.device("cpu"))  # weights on the meta device between calls
    assert next(network(name, pipe).parameters()).is_meta
    assert torch.equal(call(name, pipe), once)


@pytest.mark.parametrize("name", ["wan21", "wan22-5b"])  # a cache needs two blocks of a known class
def test_caching(name: str) -> None:
    from diffusers import FirstBlockCacheConfig

    pipe = applied(name)
    once = call(name, pipe)
    network(name, pipe).enable_cache(FirstBlockCacheConfig(threshold=0.0))
    assert torch.equal(call(name, pipe), once)
    network(name, pipe).disable_cache()
    assert torch.equal(call(name, pipe), once)


@pytest.mark.slow
@each
def test_compiled_once_whatever_the_start(name: str) -> None:
    pipe, graphs = applied(name), []

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    network(name, pipe).compile(backend=count)
    first = call(name, pipe)
    compiled = len(graphs)
    assert compiled > 0
    for start in ("0.7T", "0.6T"):
        call(name, unleak.apply(pipe, start=start, init="unit"))
    assert len(graphs) == compiled
    torch.testing.assert_close(call(name, unleak.apply(pipe, start=STARTS[name], init="unit")), first)
    torch._dynamo.reset()


def test_adapters_loaded_and_unloaded() -> None:
    from peft import LoraConfig

    pipe = applied("wan21")
    once = call("wan21", pipe)
    torch.manual_seed(0)
    pipe.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    assert not torch.equal(call("wan21", pipe), once)
    pipe.unload_lora_weights()
    assert torch.equal(call("wan21", pipe), once)


@pytest.mark.parametrize("tiny", [tiny for tiny in ALL.values() if tiny.pair], ids=lambda tiny: tiny.name)
def test_a_batch_with_a_generator_for_each(tiny: Any) -> None:
    pipe = tiny.build()
    plain = Watched(tiny, pipe, generator=[noise(0), noise(1)], num_inference_steps=9, **tiny.pair())
    unleak.apply(pipe, start=start_of(pipe)[0], init=Standard(3.0))
    ours = Watched(tiny, pipe, generator=[noise(0), noise(1)], num_inference_steps=9, **tiny.pair())
    draw = video(tiny, pipe, plain.eps, plain.places)
    made = video(tiny, pipe, ours.prepared[0], ours.places, draw)
    assert len(made) == len(draw) == 2
    assert not torch.equal(draw[0], draw[1])
    first = 1 if tiny.name in CLEAN else 0
    torch.testing.assert_close(made[:, :, first:], 3 * draw[:, :, first:], rtol=1e-5, atol=1e-5)


@each
def test_latents_of_the_caller_are_left_alone(name: str) -> None:
    pipe = applied(name, init="standard")
    seen = []
    shape = call(name, pipe, callback_on_step_end=lambda p, i, t, given: seen.append(given["latents"]) or {})
    latents = torch.randn(seen[0].shape, generator=noise(3))
    given = latents.clone()
    ours = call(name, unleak.apply(pipe, start=STARTS[name]), latents=latents)
    assert torch.equal(latents, given)
    assert torch.equal(ours, call(name, unleak.apply(pipe, start=STARTS[name], init="unit"), latents=latents))
    assert ours.shape == shape.shape
