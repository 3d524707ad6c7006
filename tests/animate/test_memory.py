"""The estimate: closed forms, its own counter, and advice."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from unleak.animate.memory import BY_SPEED, Estimate, LiveBytes, _frames_at_once, estimate, next_to_try
from unleak.animate.settings import Settings
from unleak.zoo.hub import load
from unleak.zoo.registry import MODELS, find_model

GB = 10**9
WAN = Estimate({"text_encoder": 11 * GB, "transformer": 28 * GB, "vae": GB}, GB, denoising=4 * GB, decoding=9 * GB)


def test_bytes_alive_are_counted_and_forgotten():
    with FakeTensorMode(), LiveBytes([]) as live:
        x = torch.zeros(1000)
        y = x + 1
        del x
        z = y + 1
        del y
    assert (live.now, live.peak) == (4000, 8000)
    assert z.shape == (1000,)


@pytest.mark.parametrize(("way", "gigabytes"), [("none", 49), ("model", 32), ("group", 11), ("sequential", 10)])
def test_what_is_on_the_accelerator_at_once(way, gigabytes):
    assert WAN.peak(way) == gigabytes * GB + 500_000_000


@pytest.mark.parametrize(
    ("device", "memory", "way"),
    [(80, 0, "none"), (40, 64, "model"), (24, 64, "group"), (11, 64, "sequential"), (24, 32, None), (8, 64, None)],
)
def test_the_fastest_way_that_fits(device, memory, way):
    assert WAN.fitting(device * GB, memory * GB) == way


def test_weights_are_those_of_the_model_and_decoding_grows_with_its_frames(tiny_folder):
    spec = find_model(tiny_folder)
    pipe = load(tiny_folder, device="cpu")
    of = {
        chunk: estimate(spec, Settings.for_model(spec, others=[f"decode_chunk_size={chunk}"]), torch.float16)
        for chunk in (1, 2, 4)
    }
    for name in ("unet", "vae", "image_encoder"):
        assert of[1].weights[name] == 2 * sum(parameter.numel() for parameter in getattr(pipe, name).parameters())
    parts = (pipe.unet, pipe.vae, pipe.image_encoder)
    assert of[1].largest_layer == 2 * max(p.numel() for part in parts for p in part.parameters())
    assert of[4].decoding - of[2].decoding == pytest.approx(2 * (of[2].decoding - of[1].decoding), rel=0.01)
    larger = estimate(spec, Settings.for_model(spec, height=128, width=64), torch.float16)
    assert larger.denoising == 2 * of[1].denoising


@pytest.mark.parametrize(
    ("model", "frames"), [("dynamicrafter-512", 6), ("dynamicrafter-1024", 1), ("pia", 1), ("animate-anything", 8)]
)
def test_as_many_frames_are_decoded_at_once_as_the_pipeline_decodes(model, frames):
    spec = MODELS[model]
    assert _frames_at_once(spec, Settings.for_model(spec), 16) == frames
    asked = Settings.for_model(spec, others=["decode_chunk_size=3"]) if model != "pia" else None
    assert asked is None or _frames_at_once(spec, asked, 16) == 3


def test_advice_names_the_least_costly_thing_first(tiny_folder):
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    svd = Settings.for_model(MODELS["svd"])

    def advice(device, offload, **state):
        return next_to_try(MODELS["svd"], svd, device, offload, **{"tiling": True, "decoding": False} | state)

    assert advice(cuda, "none") == "next, try --offload model; after that --num-frames 8, --size 512x256"
    assert [advice(cuda, way).split("; ")[0] for way in BY_SPEED] == [
        "next, try --offload model", "next, try --offload group", "next, try --offload sequential",
        "next, try --num-frames 8",
    ]  # fmt: skip
    assert advice(cpu, "none").startswith("next, try --num-frames 8")
    assert advice(cuda, "none", decoding=True).startswith("next, try --set decode_chunk_size=1; after that --offload")
    assert advice(cuda, "model", tiling=False, decoding=False).startswith("next, try --offload group; after that --vae")
    least = Settings.for_model(find_model(tiny_folder), height=16, width=16, num_frames=2)
    assert next_to_try(find_model(tiny_folder), least, cpu, "none", tiling=True, decoding=False) == (
        "nothing smaller is left to try with this model"
    )
