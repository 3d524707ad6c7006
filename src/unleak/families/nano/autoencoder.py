"""The nano model's autoencoder: a linear code written into a real `AutoencoderKLTemporalDecoder`, its decoder trained.

The encoder is not trained. The code of an 8x8 patch is its projection on the principal components of patches, so the
latents are known before any network is, and moving a picture moves its code. The projection fits the library's encoder
exactly: its halvings regroup pixels, residual branches are zero, and the last normalisation is made linear (below).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLTemporalDecoder
from diffusers.models.resnet import ResnetBlock2D
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

PATCH = 8  # pixels a side: three halvings
_CHANNELS = (32, 64, 64, 128)
_CARRIER = 1000.0  # dwarfs every code, so that group normalisation divides by a constant; see write_encoder


@dataclass(frozen=True)
class PatchCode:
    """A linear code of RGB patches in [-1, 1]: `code = project . patch + offset`."""

    project: Float[Tensor, "k 3 p p"]
    offset: Float[Tensor, " k"]

    def encode(self, images: Float[Tensor, "b 3 hh ww"]) -> Float[Tensor, "b k h w"]:
        """What the autoencoder's encoder computes, as one strided convolution."""
        return F.conv2d(images, self.project, self.offset, stride=self.project.shape[-1])


def principal_code(images: Float[Tensor, "b 3 hh ww"], *, channels: int, whitening: float = 0.5) -> PatchCode:
    """Return the first `channels` principal components of the 8x8 patches of `images`, in [-1, 1].

    Component i is scaled by std_i^-whitening: 0 keeps the pixels' own scale, where brightness drowns detail, 1 makes
    all variances equal. The whole code has mean square 1, which is what the noise schedule expects.
    """
    patches = rearrange(images, "b c (h y) (w x) -> (b h w) (c y x)", y=PATCH, x=PATCH).double()
    mean = patches.mean(0)
    variance, axes = torch.linalg.eigh(torch.cov((patches - mean).T))
    std, axes = variance.flip(0)[:channels].clamp_min(1e-12).sqrt(), axes.flip(1)[:, :channels].T
    gain = std**-whitening
    gain = gain / ((gain * std) ** 2).mean().sqrt()
    project = gain[:, None] * axes
    return PatchCode(
        rearrange(project, "k (c y x) -> k c y x", c=3, y=PATCH, x=PATCH).float(), -(project @ mean).float()
    )


def linear_autoencoder(code: PatchCode, *, sample_size: int = 64) -> AutoencoderKLTemporalDecoder:
    """Return an autoencoder whose encoder is `code` and whose decoder is random, to be trained.

    `sample_size` is the side of its frames in pixels, for the configuration.
    """
    channels = len(code.project)
    assert 4 * channels <= _CHANNELS[-1], "the last block has room for 32 components"
    vae = AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * 4,
        block_out_channels=_CHANNELS,
        layers_per_block=1,
        latent_channels=channels,
        sample_size=sample_size,
        scaling_factor=1.0,
        force_upcast=False,
    )
    write_encoder(vae, code)
    bypass_time(vae.decoder)
    return vae


@torch.no_grad()
def write_encoder(vae: AutoencoderKLTemporalDecoder, code: PatchCode) -> None:
    """Set the encoder's weights so that `vae.encode(x).latent_dist.mode()` is `code.encode(x)` up to rounding.

    Group normalisation and SiLU before the last convolution are not linear. Each group of four channels therefore
    carries (C, -C, z, -z) with a constant C far above every code z: its mean is 0 and its deviation C / sqrt(2) up to
    (z / C)^2, and silu(u) - silu(-u) = u holds exactly.
    """
    encoder: Any = vae.encoder
    k = len(code.project)
    for name, parameter in encoder.named_parameters():
        parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    blocks = encoder.down_blocks
    for c in range(3):
        encoder.conv_in.weight[c, c, 1, 1] = 1
    for c in range(12):
        blocks[1].resnets[0].conv_shortcut.weight[c, c] = 1
    # Two halvings turn 4x4 pixels into 48 channels: (y2 x2 y1 x1 c) is colour c of pixel (2 y2 + y1, 2 x2 + x1).
    for y in range(2):
        for x in range(2):
            for c in range(3):
                blocks[0].downsamplers[0].conv.weight[(2 * y + x) * 3 + c, c, y, x] = 1
            for c in range(12):
                blocks[1].downsamplers[0].conv.weight[(2 * y + x) * 12 + c, c, y, x] = 1
    last = blocks[2].downsamplers[0].conv
    last.weight[:k, :48, :2, :2] = rearrange(
        code.project, "k c (y3 y2 y1) (x3 x2 x1) -> k (y2 x2 y1 x1 c) y3 x3", y1=2, y2=2, x1=2, x2=2, y3=2, x3=2
    )
    last.bias[:k] = code.offset
    spread = blocks[3].resnets[0].conv_shortcut
    for group in range(_CHANNELS[-1] // 4):
        spread.bias[4 * group], spread.bias[4 * group + 1] = _CARRIER, -_CARRIER
    gain = _CARRIER / 2**0.5
    for i in range(k):
        spread.weight[4 * i + 2, i], spread.weight[4 * i + 3, i] = 1, -1
        encoder.conv_out.weight[i, 4 * i + 2, 1, 1], encoder.conv_out.weight[i, 4 * i + 3, 1, 1] = gain, -gain
    encoder.conv_out.bias[k:] = -30.0  # log variance: the code is deterministic
    vae.quant_conv.weight.copy_(torch.eye(2 * k)[:, :, None, None])
    vae.quant_conv.bias.zero_()


@torch.no_grad()
def read_code(vae: AutoencoderKLTemporalDecoder) -> PatchCode:
    """The code that `write_encoder` wrote."""
    encoder: Any = vae.encoder
    k, last = vae.config.latent_channels, encoder.down_blocks[2].downsamplers[0].conv
    project = rearrange(
        last.weight[:k, :48, :2, :2], "k (y2 x2 y1 x1 c) y3 x3 -> k c (y3 y2 y1) (x3 x2 x1)", y1=2, y2=2, x1=2, x2=2
    )
    return PatchCode(project.contiguous(), last.bias[:k].clone())


@torch.no_grad()
def bypass_time(decoder: Any) -> None:
    """Make the decoder treat frames one by one: a linear code of steady frames does not flicker."""
    for block in (decoder.mid_block, *decoder.up_blocks):
        for resnet in block.resnets:
            resnet.time_mixer.mix_factor.fill_(-30.0)  # the weight of the temporal branch is sigmoid of this
            for parameter in resnet.temporal_res_block.parameters():
                parameter.zero_()
    decoder.time_conv_out.weight.copy_(torch.eye(3)[:, :, None, None, None] * torch.tensor([0.0, 1, 0])[:, None, None])
    decoder.time_conv_out.bias.zero_()


class FrameDecoder(nn.Module):
    """The spatial layers of a temporal decoder, called without the temporal ones; they share their parameters."""

    def __init__(self, decoder: Any):
        super().__init__()
        self.conv_in, self.conv_out = decoder.conv_in, decoder.conv_out
        self.norm_out, self.act = decoder.conv_norm_out, decoder.conv_act
        middle = decoder.mid_block
        first, *rest = [resnet.spatial_res_block for resnet in middle.resnets]
        attended = zip(list(middle.attentions), rest, strict=False)
        layers = [first, *(layer for pair in attended for layer in pair)]
        for block in decoder.up_blocks:
            layers += [*(resnet.spatial_res_block for resnet in block.resnets), *(block.upsamplers or [])]
        self.layers = nn.ModuleList(layers)

    def forward(self, latents: Float[Tensor, "b k h w"]) -> Float[Tensor, "b 3 hh ww"]:
        """Decode frames one by one."""
        x = self.conv_in(latents)
        for layer in self.layers:
            x = layer(x, None) if isinstance(layer, ResnetBlock2D) else layer(x)
        return self.conv_out(self.act(self.norm_out(x)))


def train_decoder(
    vae: AutoencoderKLTemporalDecoder,
    code: PatchCode,
    batches: Iterator[Float[Tensor, "b 3 hh ww"]],
    *,
    steps: int,
    lr: float = 2e-3,
    latent_noise: float = 0.05,
    report: Callable[[int, float], None] | None = None,
) -> None:
    """Train the decoder in place to invert `code` on `batches` of images in [-1, 1]; the learning rate falls linearly.

    The loss is the mean absolute error plus the mean square. Codes are noised a little, so that the last traces of
    sampling noise are not painted as texture.
    """
    decoder = FrameDecoder(vae.decoder).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.0)
    for step in range(steps):
        images = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = lr * min((step + 1) / 50, 1.0) * max(1 - step / steps, 0.01)
        latents = code.encode(images)
        latents = latents + latent_noise * torch.rand(len(latents), 1, 1, 1) * torch.randn_like(latents)
        with torch.autocast("cpu", torch.bfloat16):
            decoded = decoder(latents)
        error = decoded.float() - images
        mse = error.square().mean()
        (error.abs().mean() + mse).backward()
        nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if report:
            report(step, mse.item())


def psnr(a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
    """Peak signal-to-noise ratio of each image in dB; images in [-1, 1]."""
    return -10 * torch.log10(((a - b) / 2).square().mean((1, 2, 3)))
