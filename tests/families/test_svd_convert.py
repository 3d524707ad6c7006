import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableVideoDiffusionPipeline, UNetSpatioTemporalConditionModel
from safetensors.torch import load_file

from tests.tiny.svd import SETTINGS, tiny_svd
from unleak.families.svd.convert import UNET, convert, restore, unet_weights

CONFIG = SETTINGS["unet_config"]


def network(seed: int) -> UNetSpatioTemporalConditionModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return UNetSpatioTemporalConditionModel(**CONFIG)


@pytest.fixture(scope="module")
def trained() -> dict[str, torch.Tensor]:
    return network(1).state_dict()


@pytest.fixture(scope="module")
def average() -> list[torch.Tensor]:
    return [parameter.detach() for parameter in network(2).parameters()]


def equal(a: Any, b: Any) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("ema", [None, "list", "dict"])
def test_the_average_is_taken_if_there_is_one(
    parallel: bool, ema: str | None, trained: dict[str, torch.Tensor], average: list[torch.Tensor], tmp_path: Path
) -> None:
    prefix = "module." if parallel else ""
    content: dict[str, Any] = {"state_dict": {prefix + k: v for k, v in trained.items()}, "step": 20000}
    if ema:
        content["ema_state"] = average if ema == "list" else {"decay": 0.9999, "shadow_params": average}
    torch.save(content, tmp_path / "checkpoint.ckpt")
    expected = network(2).state_dict() if ema else trained
    assert convert(tmp_path / "checkpoint.ckpt", tmp_path / "out", config=CONFIG) == sum(v.numel() for v in average)
    unet = UNetSpatioTemporalConditionModel.from_pretrained(tmp_path / "out")
    assert equal(unet.state_dict(), expected)
    convert(tmp_path / "checkpoint.ckpt", tmp_path / "out", config=CONFIG, ema=False)
    assert equal(load_file(tmp_path / "out" / "diffusion_pytorch_model.safetensors"), trained)
    restore(tmp_path / "out", tmp_path / "back.ckpt")
    assert equal(torch.load(tmp_path / "back.ckpt", weights_only=True)["state_dict"], trained)


def test_with_a_base_it_becomes_a_pipeline(trained: dict[str, torch.Tensor], tmp_path: Path) -> None:
    tiny_svd().save_pretrained(tmp_path / "base")
    torch.save({"state_dict": trained}, tmp_path / "checkpoint.ckpt")
    convert(tmp_path / "checkpoint.ckpt", tmp_path / "out", base=tmp_path / "base")
    pipe = StableVideoDiffusionPipeline.from_pretrained(tmp_path / "out")
    assert equal(pipe.unet.state_dict(), trained)
    assert dict(pipe.unet.config)["block_out_channels"] == CONFIG["block_out_channels"]
    restore(tmp_path / "out", tmp_path / "back.ckpt")
    assert equal(torch.load(tmp_path / "back.ckpt", weights_only=True)["state_dict"], trained)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["state_dict"].pop("conv_in.bias"),
            r"not a UNet of Stable Video Diffusion: conv_in.bias, of 1 miss",
        ),
        (lambda c: c["state_dict"].update(extra=torch.zeros(1)), r"extra, of 1 unknown"),
        (lambda c: c["state_dict"].update({"conv_in.bias": torch.zeros(3)}), r"conv_in.bias is \[3\], expected \[32\]"),
        (lambda c: c.update(ema_state=[torch.zeros(1)]), r"1 averaged parameters for a network of \d+"),
    ],
)
def test_strict(change: Any, message: str, trained: dict[str, torch.Tensor]) -> None:
    content = {"state_dict": dict(trained)}
    change(content)
    with pytest.raises(ValueError, match=message):
        unet_weights(content, {name: value.shape for name, value in trained.items()})


def test_the_order_of_an_average_is_that_of_the_network(trained: dict[str, torch.Tensor]) -> None:
    """A list says nothing of names, so every shape is held against the parameter of its place."""
    names = {name: value.shape for name, value in network(1).named_parameters()}
    backwards = list(reversed([trained[name] for name in names]))
    with pytest.raises(ValueError, match="expected"):
        unet_weights({"state_dict": trained, "ema_state": backwards}, names)


def test_the_published_network() -> None:
    with torch.device("meta"):
        unet = UNetSpatioTemporalConditionModel.from_config(dict(UNET))
    assert sum(p.numel() for p in unet.parameters()) == 1_524_623_082
    assert json.loads(unet.to_json_string())["num_attention_heads"] == [5, 10, 20, 20]
