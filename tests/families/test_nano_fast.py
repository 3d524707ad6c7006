"""The fast forward computes what diffusers' network computes."""

import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel

from unleak.families.nano.fast import FastDenoiser


def network(layers: int = 1) -> UNetSpatioTemporalConditionModel:
    torch.manual_seed(0)
    unet = UNetSpatioTemporalConditionModel(
        sample_size=4,
        in_channels=8,
        out_channels=4,
        down_block_types=("DownBlockSpatioTemporal", "CrossAttnDownBlockSpatioTemporal"),
        up_block_types=("CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"),
        block_out_channels=(32, 64),
        num_attention_heads=(2, 2),
        layers_per_block=layers,
        cross_attention_dim=6,
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24,
        num_frames=5,
    )
    for parameter in unet.parameters():  # no weight is at a value that hides a mistake
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return unet


@pytest.fixture(scope="module")
def inputs():
    g = torch.Generator().manual_seed(1)
    latents, context = torch.randn(2, 5, 8, 4, 4, generator=g), torch.randn(2, 6, generator=g)
    return latents, torch.tensor([0.3, -1.2]), context, torch.tensor([[6.0, 127.0, 0.0], [7.0, 90.0, 0.1]])


def test_output_and_gradients_are_those_of_diffusers(inputs):
    unet, (latents, timestep, context, ids) = network(), inputs
    theirs = unet(latents, timestep, context[:, None], ids).sample
    theirs.square().mean().backward()
    expected = {name: p.grad.clone() for name, p in unet.named_parameters() if p.grad is not None}
    unet.zero_grad()
    ours, _ = FastDenoiser(unet, dtype=torch.float32, compiled=False)(
        latents.permute(0, 1, 3, 4, 2), timestep, context, ids
    )
    ours.square().mean().backward()
    torch.testing.assert_close(ours.permute(0, 1, 4, 2, 3), theirs, rtol=1e-4, atol=1e-5)
    for name, gradient in expected.items():
        if any(part in name for part in ("attn2.to_q", "attn2.to_k", "transformer_blocks.0.norm2")):
            assert gradient.abs().max() < 1e-6  # of one token of context only the value counts
        else:
            torch.testing.assert_close(unet.get_parameter(name).grad, gradient, rtol=1e-3, atol=1e-6)


def test_networks_of_more_layers_are_refused():
    with pytest.raises(ValueError, match="one layer per block"):
        FastDenoiser(network(layers=2))
