"""Assemble nano: what canvases.py, decoder.py and pretrain.py made becomes one pipeline folder.

    python recipes/nano/build.py OUT TRAINED PIPELINE

OUT is the folder of the canvases with `vae`, TRAINED the output of pretrain.py. The moments for Analytic-Init are those
of 16,000 clips of the law.
"""

import sys
from pathlib import Path

import torch
from canvases import MOTIONS, NUM_FRAMES, SIZE
from diffusers import AutoencoderKLTemporalDecoder, StableVideoDiffusionPipeline, UNetSpatioTemporalConditionModel
from pretrain import Clips, Recipe
from transformers import CLIPImageProcessor

from unleak.attach.latent_space import latent_space
from unleak.core.moments import LatentMoments, MomentsMeta
from unleak.families.nano.autoencoder import PATCH
from unleak.families.nano.parts import image_encoder, scheduler

_FPS = 7
_CANVASES, _CLIPS_EACH = 2000, 8


def main(out: Path, trained: Path, folder: Path) -> None:
    """Write the pipeline folder and its moments."""
    for path, maker in ((out / "vae", "decoder.py"), (trained / "unet", "pretrain.py")):
        if not path.is_dir():
            sys.exit(f"{path} is missing: recipes/nano/{maker} makes it (`make nano` runs all in order)")
    vae = AutoencoderKLTemporalDecoder.from_pretrained(out / "vae", torch_dtype=torch.float16)
    unet = UNetSpatioTemporalConditionModel.from_pretrained(trained / "unet", torch_dtype=torch.float16)
    pipe = StableVideoDiffusionPipeline(
        vae=vae,
        image_encoder=image_encoder().half(),
        unet=unet,
        scheduler=scheduler(),
        feature_extractor=CLIPImageProcessor(),
    )
    pipe.save_pretrained(folder)
    moments = law_moments(out, vae)
    moments.save(folder / "moments.safetensors")
    print(f"{folder}: isotropic variance {float(moments.isotropic_variance):.4f} of {moments.count} clips")


def law_moments(out: Path, vae: AutoencoderKLTemporalDecoder) -> LatentMoments:
    """Return E[x_0] and E[x_0^2] of clips as the law draws them: one frame says it for all instants."""
    clips, g = Clips(out), torch.Generator().manual_seed(0)
    still = Recipe.model_fields["prior_still"].default
    shares = torch.tensor([still] + [(1 - still) / (len(MOTIONS) - 1)] * (len(MOTIONS) - 1))
    meta = MomentsMeta("nano", latent_space(vae), _FPS, SIZE, SIZE, f"{_CANVASES * _CLIPS_EACH} clips of nano's law")
    moments = LatentMoments.empty((vae.config.latent_channels, NUM_FRAMES, SIZE // PATCH, SIZE // PATCH), meta)
    for _ in range(_CANVASES // 4):
        every = clips.draw(g, 4)
        drawn = torch.multinomial(shares.expand(4, -1), _CLIPS_EACH, replacement=True, generator=g)
        batch = every[torch.arange(4)[:, None], drawn].flatten(0, 1)
        moments = moments.update(batch.permute(0, 4, 1, 2, 3).contiguous())
    return moments.resample(1, *moments.shape[2:])


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*(Path(argument) for argument in sys.argv[1:]))
