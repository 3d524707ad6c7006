import logging
import shutil
import socket

import pytest
import torch
from PIL import Image

from unleak.zoo.hub import Lora, _placed, load, pick_device, pick_dtype, quiet
from unleak.zoo.lora import adapter_names


def test_a_folder_loads_without_network_and_without_a_word(tiny_folder, monkeypatch, capfd):
    def no_network(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    pipe = load(tiny_folder, device="cpu")
    assert pipe.unet.dtype == torch.float32
    assert capfd.readouterr() == ("", "")


def test_only_the_networks_wanted_are_loaded(tiny_folder):
    pipe = load(tiny_folder, only=("vae",), dtype="bfloat16", device="cpu")
    assert pipe.vae.dtype == torch.bfloat16
    assert pipe.unet is None
    assert pipe.image_encoder is None


def test_sampling_shows_the_progress_bar_that_diffusers_shows(tiny_folder, capfd):
    pipe = load(tiny_folder, device="cpu")
    pipe(Image.new("RGB", (16, 16)), height=16, width=16, num_frames=2, num_inference_steps=1, output_type="latent")
    assert "1/1" in capfd.readouterr().err


@pytest.mark.parametrize("wanted", [True, False])
def test_downloads_are_seen_while_all_else_is_quiet(wanted):
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if not wanted:
        disable_progress_bars()
    try:
        with quiet():
            assert are_progress_bars_disabled() != wanted
        assert are_progress_bars_disabled() != wanted
    finally:
        enable_progress_bars()


def test_quiet_puts_everything_back():
    import transformers

    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity(logging.INFO)
    try:
        with quiet():
            assert transformers.logging.get_verbosity() == logging.CRITICAL
        assert transformers.logging.get_verbosity() == logging.INFO
    finally:
        transformers.logging.set_verbosity(before)


@pytest.mark.parametrize("missing", ["unet/diffusion_pytorch_model.safetensors", "vae", "scheduler"])
def test_an_incomplete_folder_is_one_line(tiny_folder, tmp_path, missing):
    folder = tmp_path / "broken"
    shutil.copytree(tiny_folder, folder)
    target = folder / missing
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    with pytest.raises(ValueError, match=r"model broken .*: its files are incomplete") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_a_pickled_model_is_refused(tiny_folder, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_folder, folder)
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(ValueError, match="incomplete"):
        load(folder)


@pytest.mark.parametrize("name", ["svd", "someone/their-svd"])
def test_offline_a_model_that_is_not_here_is_one_line(name, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"not on this machine and not to be had") as caught:
        load(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("device", "message"), [("gpu7", "unknown"), ("cuda", "no accelerator"), ("mps", "this machine has")]
)
def test_devices_that_are_not_there(device, message):
    if torch.accelerator.is_available():
        pytest.skip("this machine has an accelerator")
    with pytest.raises(ValueError, match="give"):
        pick_device(device)


def test_dtypes():
    assert pick_dtype(None, torch.device("cpu")) == torch.float32
    assert pick_dtype(None, torch.device("cuda")) == torch.float16
    assert pick_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16
    with pytest.raises(ValueError, match="give one of float32, float16, bfloat16"):
        pick_dtype("int8", torch.device("cpu"))


@pytest.mark.parametrize(
    ("text", "source", "scale"),
    [
        ("style.safetensors", "style.safetensors", 1.0),
        ("style.safetensors:0.8", "style.safetensors", 0.8),
        ("style.safetensors:-1", "style.safetensors", -1.0),
        ("owner/style:0.5", "owner/style", 0.5),
        (".", ".", 1.0),
    ],
)
def test_a_lora_and_its_scale(tmp_path, monkeypatch, text, source, scale):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "style.safetensors").touch()
    lora = Lora.parse(text)
    assert (lora.source, lora.scale) == (source, scale)
    assert lora.record["scale"] == scale


def test_adapters_are_named_after_their_files():
    sources = [
        "Wan2.2-Lightning v1.1.safetensors",
        "owner/Wan2.2-Lightning v1.1",
        "loras/Wan2.2-Lightning/high_noise_model.safetensors",
        "....safetensors",
    ]
    names = adapter_names(map(Lora, sources))
    assert names == ["Wan2_2-Lightning_v1_1", "Wan2_2-Lightning_v1_1_2", "Wan2_2-Lightning", "lora"]


def test_weights_moved_a_layer_at_a_time_give_the_same_video(tiny_folder):
    """Group offload, on the CPU alone: the hooks are those of an accelerator."""
    videos = []
    for offload in ("none", "group"):
        pipe = _placed(load(tiny_folder, device="cpu"), torch.device("cpu"), offload)
        pipe.set_progress_bar_config(disable=True)
        call = {"height": 16, "width": 16, "num_frames": 2, "num_inference_steps": 1, "output_type": "np"}
        videos.append(
            pipe(Image.new("RGB", (16, 16), "teal"), generator=torch.Generator().manual_seed(0), **call).frames
        )
    assert (videos[0] == videos[1]).all()


def test_offload_needs_an_accelerator(tiny_folder):
    with pytest.raises(ValueError, match="it spares the memory of an accelerator"):
        load(tiny_folder, device="cpu", offload="group")
    with pytest.raises(ValueError, match="give one of none, model, sequential, group"):
        load(tiny_folder, device="cpu", offload="disk")


def test_a_large_network_runs_in_bfloat16_where_the_processor_multiplies_it(tiny_folder, monkeypatch):
    monkeypatch.setattr("unleak.zoo.hub.multiplies_bfloat16", lambda: True)
    said = []

    def dtype(**settings):
        return load(tiny_folder, device="cpu", say=said.append, **settings).unet.dtype

    assert dtype(fast=True) == torch.float32  # it is small
    monkeypatch.setattr("unleak.zoo.hub._LARGE", 1000)
    assert (dtype(), said) == (torch.float32, [])
    assert dtype(fast=True, dtype="float32") == torch.float32
    assert dtype(fast=True) == torch.bfloat16
    assert said == ["in bfloat16, which this processor multiplies fast (AMX); --dtype float32 for the full precision"]
    monkeypatch.setattr("unleak.zoo.hub.multiplies_bfloat16", lambda: False)
    assert dtype(fast=True) == torch.float32
