"""The autoencoder of 16x16 patches: what was written into the library's encoder is the linear code."""

import pytest
import torch

from unleak.families.nano.autoencoder import FrameDecoder
from unleak.families.nano.patch16 import linear_autoencoder, principal_code, read_code


@pytest.fixture(scope="module")
def images():
    coarse = torch.randn(24, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, 64, mode="bicubic").mul(0.3).clamp(-1, 1)


@pytest.fixture(scope="module")
def code(images):
    return principal_code(images, channels=24)


@pytest.fixture(scope="module")
def vae(code):
    torch.manual_seed(0)
    return linear_autoencoder(code).eval()


def test_code_has_mean_square_one_and_uncorrelated_channels(images, code):
    latents = code.encode(images)
    assert latents.square().mean() == pytest.approx(1.0, abs=1e-3)
    flat = latents.movedim(1, 0).flatten(1)
    correlation = torch.corrcoef(flat) - torch.eye(24)
    assert correlation.abs().max() < 0.01


@torch.no_grad()
def test_encoder_computes_the_code(images, code, vae):
    encoded = vae.encode(images).latent_dist
    torch.testing.assert_close(encoded.mode(), code.encode(images), rtol=1e-3, atol=5e-4)
    assert encoded.std.max() < 1e-6


@torch.no_grad()
def test_encoder_survives_half_precision_storage(images, code, vae):
    stored = {name: tensor.half().float() for name, tensor in vae.state_dict().items()}
    copy = linear_autoencoder(code).eval()
    copy.load_state_dict(stored)
    torch.testing.assert_close(copy.encode(images).latent_dist.mode(), code.encode(images), rtol=5e-3, atol=5e-3)


def test_code_is_read_back(code, vae):
    read = read_code(vae)
    torch.testing.assert_close(read.project, code.project, rtol=1e-5, atol=1e-6)
    assert torch.equal(read.offset, code.offset)


@torch.no_grad()
def test_frame_decoder_is_the_whole_decoder(vae):
    latents = torch.randn(4, 24, 3, 3)
    whole = vae.decode(latents, num_frames=4).sample
    torch.testing.assert_close(whole, FrameDecoder(vae.decoder)(latents), rtol=0, atol=1e-5)
    alone = torch.cat([vae.decode(z[None], num_frames=1).sample for z in latents])
    torch.testing.assert_close(whole, alone, rtol=0, atol=1e-5)
