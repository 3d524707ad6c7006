"""The next nano's autoencoder: a linear code of 16x16 patches in 64 channels, for frames of 128x128.

It leaves the same 8x8 grid as the shipped model's code of 8x8 patches leaves of 64x64, so the denoiser costs the same.
How a linear code fits into `AutoencoderKLTemporalDecoder` is told in `autoencoder`, whose parts are used here.
"""

from itertools import product
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder
from diffusers.models.resnet import ResnetBlock2D
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn

from unleak.families.nano.autoencoder import PatchCode, bypass_time, principal_components

PATCH = 16  # pixels a side: four halvings
_CHANNELS = (32, 64, 96, 96, 128)
_QUARTER = 96  # numbers that the third halving keeps of the 192 of an 8x8 block
_CARRIER = 1000.0  # dwarfs every code, so that group normalisation divides by a constant; see write_encoder
_LINEAR = 30.0  # silu(u) is u to float32 precision from here on


def principal_code(images: Float[Tensor, "b 3 hh ww"], *, channels: int, whitening: float = 0.5) -> PatchCode:
    """Return the first `channels` principal components of the patches of `images`, in [-1, 1], as the encoder holds
    them.

    They are scaled as `principal_components` says; the whole code has mean square 1 (`writable` takes a little of it).
    """
    code = writable(principal_components(images, channels=channels, whitening=whitening, patch=PATCH))
    size = code.encode(images).square().mean().sqrt()
    return PatchCode(code.project / size, code.offset / size)


def writable(code: PatchCode) -> PatchCode:
    """Return the code nearest to `code` that an encoder can hold.

    The third halving keeps 96 numbers of each 8x8 block: the part of the code that these do not see (a 20,000th of it,
    in mean square) is dropped.
    """
    quarters, basis = _quarters(code)
    project = rearrange(
        quarters @ basis.T @ basis, "k y4 x4 (y1 y2 y3 x1 x2 x3 c) -> k c (y4 y3 y2 y1) (x4 x3 x2 x1)", **_TWO, c=3
    )
    return PatchCode(project.contiguous(), code.offset)


_TWO = {"y1": 2, "y2": 2, "y3": 2, "x1": 2, "x2": 2, "x3": 2}


def _quarters(code: PatchCode) -> tuple[Float[Tensor, "k 2 2 192"], Float[Tensor, "96 192"]]:
    """Return the code's weights on the four 8x8 blocks of a patch, and the basis that keeps most of them."""
    quarters = rearrange(
        code.project, "k c (y4 y3 y2 y1) (x4 x3 x2 x1) -> k y4 x4 (y1 y2 y3 x1 x2 x3 c)", y4=2, x4=2, **_TWO
    )
    _, _, axes = torch.linalg.svd(quarters.reshape(-1, quarters.shape[-1]).double(), full_matrices=False)
    return quarters, axes[:_QUARTER].float()


def linear_autoencoder(code: PatchCode) -> AutoencoderKLTemporalDecoder:
    """Return an autoencoder whose encoder is `code` and whose decoder is random, to be trained."""
    channels = len(code.project)
    assert channels <= _CHANNELS[-1] // 2, "the last block has room for 64 components"
    vae = AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * len(_CHANNELS),
        block_out_channels=_CHANNELS,
        layers_per_block=1,
        latent_channels=channels,
        sample_size=128,
        scaling_factor=1.0,
        force_upcast=False,
    )
    write_encoder(vae, code)
    bypass_time(vae.decoder)
    for module in vae.decoder.modules():
        if isinstance(module, ResnetBlock2D):  # residual branches start at zero
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
    return vae


@torch.no_grad()
def write_encoder(vae: AutoencoderKLTemporalDecoder, code: PatchCode) -> None:
    """Set the encoder's weights so that `vae.encode(x).latent_dist.mode()` is `code.encode(x)` up to rounding.

    `code` has to be writable. Group normalisation and SiLU before the last convolution are not linear. Each group of
    four channels therefore carries (C, a, b, -a - b) with a constant C far above the codes a and b: the group's mean is
    C / 4 and its deviation C sqrt(3) / 4 up to (code / C)^2. The normalisation's own bias lifts the last three to where
    silu(u) = u, and the last convolution takes a third of their sum, the lift, away again.
    """
    encoder: Any = vae.encoder
    k = len(code.project)
    for name, parameter in encoder.named_parameters():
        parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    blocks = encoder.down_blocks
    for c in range(3):
        encoder.conv_in.weight[c, c, 1, 1] = 1
    # Two halvings turn 4x4 pixels into 48 channels: (y2 x2 y1 x1 c) is colour c of pixel (2 y2 + y1, 2 x2 + x1).
    for halving, channels in ((0, 3), (1, 12)):
        conv = blocks[halving].downsamplers[0].conv
        for y, x, c in product(range(2), range(2), range(channels)):
            conv.weight[(2 * y + x) * channels + c, c, y, x] = 1
    # The third makes 96 numbers of 8x8 pixels, the fourth the code of 16x16. Where a block changes its width, its
    # shortcut hands on what there is.
    quarters, basis = _quarters(code)
    _pass(blocks[1].resnets[0].conv_shortcut, 12)
    _pass(blocks[2].resnets[0].conv_shortcut, 48)
    blocks[2].downsamplers[0].conv.weight[:_QUARTER, :48, :2, :2] = rearrange(
        basis, "q (y1 y2 y3 x1 x2 x3 c) -> q (y2 x2 y1 x1 c) y3 x3", **_TWO, c=3
    )
    last = blocks[3].downsamplers[0].conv
    last.weight[:k, :_QUARTER, :2, :2] = rearrange(quarters @ basis.T, "k y x q -> k q y x")
    last.bias[:k] = code.offset
    spread, normalise = blocks[4].resnets[0].conv_shortcut, encoder.conv_norm_out
    spread.bias[::4] = _CARRIER
    deviation = _CARRIER * 3**0.5 / 4
    normalise.weight.fill_(deviation / _CARRIER)
    for i in range(k):
        group = i // 2 * 4
        at, other, rest = group + 1 + i % 2, group + 2 - i % 2, group + 3
        spread.weight[at, i], spread.weight[rest, i] = 1, -1
        encoder.conv_out.weight[i, [at, other, rest], 1, 1] = torch.tensor([2, -1, -1]) / 3
    for place in (1, 2, 3):
        normalise.weight[place::4] = deviation
        normalise.bias[place::4] = _CARRIER / 4 + _LINEAR
    encoder.conv_out.bias[k:] = -30.0  # log variance: the code is deterministic
    vae.quant_conv.weight.copy_(torch.eye(2 * k)[:, :, None, None])
    vae.quant_conv.bias.zero_()


def _pass(shortcut: Any, channels: int) -> None:
    """Make a 1x1 convolution hand on its first `channels` channels."""
    for c in range(channels):
        shortcut.weight[c, c] = 1


@torch.no_grad()
def read_code(vae: AutoencoderKLTemporalDecoder) -> PatchCode:
    """Return the code that `write_encoder` wrote."""
    blocks: Any = vae.encoder.down_blocks
    k, last = vae.config.latent_channels, blocks[3].downsamplers[0].conv
    basis = blocks[2].downsamplers[0].conv.weight[:_QUARTER, :48, :2, :2]
    project = einsum(
        last.weight[:k, :_QUARTER, :2, :2],
        rearrange(basis, "q (y2 x2 y1 x1 c) y3 x3 -> q c y3 y2 y1 x3 x2 x1", y1=2, y2=2, x1=2, x2=2, c=3),
        "k q y4 x4, q c y3 y2 y1 x3 x2 x1 -> k c y4 y3 y2 y1 x4 x3 x2 x1",
    )
    return PatchCode(project.reshape(k, 3, PATCH, PATCH).contiguous(), last.bias[:k].clone())
