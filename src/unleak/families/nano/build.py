"""Build the untrained nano pipeline: `python -m unleak.families.nano.build PHOTOS OUT`.

All but the U-Net is final: the autoencoder (a linear code and a decoder trained here) and the image encoder (a fixed
random one). The U-Net is random; `unleak train recipes/nano/base.yaml` trains it.
"""

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import StableVideoDiffusionPipeline, UNetSpatioTemporalConditionModel
from diffusers.models.resnet import ResnetBlock2D, TemporalResnetBlock
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPImageProcessor

from unleak.data.pixels import to_unit
from unleak.data.synthetic import MotionRange, SyntheticClips
from unleak.families.nano.autoencoder import linear_autoencoder, principal_code, psnr, train_decoder
from unleak.families.nano.parts import CONTEXT, image_encoder, scheduler

LATENT_CHANNELS = 24
NUM_FRAMES = 12
PSNR_GATE = 26.0  # dB on held-out photos; below this a scene is not recognised


def build(photos: Path, out: Path, *, decoder_steps: int = 3000, batch: int = 48, seed: int = 0) -> float:
    """Write the pipeline folder `out` from `photos/train`; returns the mean PSNR in dB on `photos/test`.

    Raises RuntimeError when the autoencoder stays below the gate of 26 dB.
    """
    still = MotionRange(max_speed=0.0, still=0.0, object_share=0.15)
    train = SyntheticClips(photos / "train", num_frames=1, length=10**7, seed=seed, motion=still)
    test = SyntheticClips(photos / "test", num_frames=1, length=256, seed=seed, motion=still)

    code = principal_code(_images(train, range(2000)), channels=LATENT_CHANNELS)
    torch.manual_seed(seed)
    vae = linear_autoencoder(code)
    started, running = time.monotonic(), []

    def report(step: int, mse: float) -> None:
        running.append(mse)
        if (step + 1) % 100 == 0:
            mean = sum(running[-100:]) / 100
            seconds = time.monotonic() - started
            print(f"decoder step {step + 1}/{decoder_steps} mse {mean:.5f} {seconds:.0f} s", flush=True)

    batches = _batches(train, batch, quarters=int(0.8 * decoder_steps))
    train_decoder(vae, code, batches, steps=decoder_steps, report=report)
    held_out = _images(test, range(len(test)))
    vae = vae.half().float().eval()  # the precision it ships in
    with torch.inference_mode():
        decoded = torch.cat([vae.decode(vae.encode(x[None]).latent_dist.mode(), num_frames=1).sample for x in held_out])
    quality = float(psnr(decoded, held_out).mean())
    print(f"autoencoder: {quality:.2f} dB on held-out photos")
    if quality < PSNR_GATE:
        raise RuntimeError(f"the autoencoder reaches {quality:.2f} dB on held-out photos; the gate is {PSNR_GATE} dB")

    torch.manual_seed(seed)
    unet = _unet()
    pipe = StableVideoDiffusionPipeline(
        vae=vae,
        image_encoder=image_encoder(seed=seed),
        unet=unet,
        scheduler=scheduler(),
        feature_extractor=CLIPImageProcessor(),
    )
    pipe.save_pretrained(out)
    return quality


def _images(clips: SyntheticClips, indices: range) -> Float[Tensor, "b 3 h w"]:
    return torch.cat([to_unit(clips.clip(i).video) for i in indices])


def _batches(clips: SyntheticClips, size: int, *, quarters: int) -> Iterator[Float[Tensor, "b 3 h w"]]:
    """Batches of `size` quarters of images, then, after `quarters` of these, of `size // 4` whole images.

    The code is local, so a quarter teaches as much per pixel; four times as many scenes per step learn faster.
    """
    for first in itertools.count(step=size):
        if first < quarters * size:
            images = _images(clips, range(first, first + size))
            corner = (first // size) % 4
            y, x = (corner // 2) * images.shape[2] // 2, (corner % 2) * images.shape[3] // 2
            yield images[:, :, y : y + images.shape[2] // 2, x : x + images.shape[3] // 2]
        else:
            yield _images(clips, range(first, first + size // 4))


def _unet() -> UNetSpatioTemporalConditionModel:
    """Three levels of 64 channels with attention at each, 4.5 M parameters. Residual branches start at zero.

    Which way the camera goes shows faintly everywhere and strongly nowhere: the coarse levels, 4x4 and 2x2, are where
    the evidence of a whole clip is added up.
    """
    unet = UNetSpatioTemporalConditionModel(
        sample_size=8,
        in_channels=2 * LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlockSpatioTemporal",) * 3,
        up_block_types=("CrossAttnUpBlockSpatioTemporal",) * 3,
        block_out_channels=(64, 64, 64),
        num_attention_heads=(1, 1, 1),
        layers_per_block=1,
        cross_attention_dim=CONTEXT,
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=96,
        num_frames=NUM_FRAMES,
    )
    for module in unet.modules():
        if isinstance(module, ResnetBlock2D | TemporalResnetBlock):
            _zero(module.conv2)
        elif isinstance(module, TransformerSpatioTemporalModel):
            _zero(module.proj_out)
    return unet


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, help="folder with train/ and test/")
    parser.add_argument("out", type=Path)
    parser.add_argument("--decoder-steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    steps, batch, seed = arguments.decoder_steps, arguments.batch, arguments.seed
    build(arguments.photos, arguments.out, decoder_steps=steps, batch=batch, seed=seed)
