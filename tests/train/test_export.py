"""Names of adapters: blocks counted as the original network builds them, one by one."""

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel, UNetSpatioTemporalConditionModel
from torch import nn

from unleak.train.export import comfyui_names


def layers(network):
    """Those that can be adapted, by diffusers' names."""
    return [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d | nn.Conv3d)]


def renamed(network):
    """Layer -> the name that ComfyUI has for it."""
    tensors = {f"{name}.lora_A.weight": torch.tensor(k) for k, name in enumerate(layers(network))}
    names = list(comfyui_names(network, tensors))
    assert len(set(names)) == len(tensors)
    assert all(name.startswith("diffusion_model.") and name.endswith(".lora_A.weight") for name in names)
    own = [name.removeprefix("diffusion_model.").removesuffix(".lora_A.weight") for name in names]
    return dict(zip(layers(network), own, strict=True))


@pytest.fixture(scope="module")
def unet():
    with torch.device("meta"):
        return UNetSpatioTemporalConditionModel()


def blocks(unet):
    """diffusers' parts -> places in the original, which appends to its lists as it goes down and up."""
    found, number = {"conv_in": "input_blocks.0.0"}, 1
    for i, level in enumerate(unet.down_blocks):
        for j in range(len(level.resnets)):
            found[f"down_blocks.{i}.resnets.{j}"] = f"input_blocks.{number}.0"
            if hasattr(level, "attentions"):
                found[f"down_blocks.{i}.attentions.{j}"] = f"input_blocks.{number}.1"
            number += 1
        if level.downsamplers:
            found[f"down_blocks.{i}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
            number += 1
    number = 0
    for i, level in enumerate(unet.up_blocks):
        for j in range(len(level.resnets)):
            parts = [f"up_blocks.{i}.resnets.{j}"]
            parts += [f"up_blocks.{i}.attentions.{j}"] if hasattr(level, "attentions") else []
            found |= {part: f"output_blocks.{number}.{k}" for k, part in enumerate(parts)}
            if level.upsamplers and j == len(level.resnets) - 1:
                found[f"up_blocks.{i}.upsamplers.0.conv"] = f"output_blocks.{number}.{len(parts)}.conv"
            number += 1
    return found | {
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
        "conv_out": "out.2",
    }


def test_svd_is_named_as_the_original_counts(unet):
    names, places = renamed(unet), blocks(unet)
    for layer, name in names.items():
        if "time_embedding" in layer or "add_embedding" in layer:
            continue
        part = max((part for part in places if f"{layer}.".startswith(f"{part}.")), key=len)
        assert f"{name}.".startswith(f"{places[part]}."), layer
    for layer, name in (
        ("time_embedding.linear_1", "time_embed.0"),
        ("add_embedding.linear_2", "label_emb.0.2"),
        ("down_blocks.1.resnets.0.spatial_res_block.conv_shortcut", "input_blocks.4.0.skip_connection"),
        ("down_blocks.1.resnets.0.temporal_res_block.time_emb_proj", "input_blocks.4.0.time_stack.emb_layers.1"),
        (
            "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_out.0",
            "input_blocks.2.1.transformer_blocks.0.attn2.to_out.0",
        ),
        (
            "up_blocks.3.attentions.2.temporal_transformer_blocks.0.ff_in.net.0.proj",
            "output_blocks.11.1.time_stack.0.ff_in.net.0.proj",
        ),
        ("mid_block.attentions.0.time_pos_embed.linear_2", "middle_block.1.time_pos_embed.2"),
    ):
        assert names[layer] == name


def test_a_smaller_network_of_that_class_is_none_of_comfyuis(tiny_svd):
    assert comfyui_names(tiny_svd.unet, {"conv_in.lora_A.weight": torch.zeros(1)}) == {}


def test_ltx_differs_in_two_names():
    with torch.device("meta"):
        network = LTXVideoTransformer3DModel(num_layers=1)
    names = renamed(network)
    assert {a: b for a, b in names.items() if a != b} == {
        "proj_in": "patchify_proj",
        "time_embed.emb.timestep_embedder.linear_1": "adaln_single.emb.timestep_embedder.linear_1",
        "time_embed.emb.timestep_embedder.linear_2": "adaln_single.emb.timestep_embedder.linear_2",
        "time_embed.linear": "adaln_single.linear",
    }
