"""Moments of the nano model's latents over a recipe's cached clips, for Analytic-Init.

python recipes/nano/moments.py recipes/nano/naive.yaml moments.safetensors
"""

import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKLTemporalDecoder

from unleak.attach.latent_space import latent_space
from unleak.core.moments import LatentMoments, MomentsMeta
from unleak.train.cache import LatentCache, cache_folder
from unleak.train.config import load_recipe
from unleak.train.data import open_dataset


def main(path: Path, out: Path, *, batch: int = 500) -> None:
    """Sum the cached latents of every clip of the recipe and write their moments."""
    recipe = load_recipe(path)
    assert recipe.data.cache is not None, "the recipe has no cache"
    vae = AutoencoderKLTemporalDecoder.from_pretrained(recipe.model, subfolder="vae")
    dataset = open_dataset(recipe.data)
    latents = LatentCache(cache_folder(recipe.data, dataset, vae)).latents
    size = recipe.data.size
    meta = MomentsMeta("nano", latent_space(vae), recipe.data.fps, size, size, f"{len(latents)} clips of {path.name}")
    moments = LatentMoments.empty(latents.shape[1:], meta)
    for first in range(0, len(latents), batch):
        moments = moments.update(torch.from_numpy(latents[first : first + batch].astype("float32")))
    # The law of motion prefers no direction and no instant, so every frame has the same moments: one says them all.
    moments = moments.resample(1, *moments.shape[2:])
    moments.save(out)
    print(f"{out}: {moments.count} clips, isotropic variance {float(moments.isotropic_variance):.4f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
