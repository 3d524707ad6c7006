"""Fill a nano recipe's latent cache a hundred times faster than its autoencoder would: the encoder is a linear code.

python recipes/nano/fill_cache.py recipes/nano/base.yaml
"""

import sys
from pathlib import Path

from diffusers import AutoencoderKLTemporalDecoder
from einops import rearrange

from unleak.families.nano.autoencoder import read_code
from unleak.train.cache import build_cache, cache_folder
from unleak.train.config import load_recipe
from unleak.train.data import open_dataset

_MAKERS = {
    "out/nano/init": "python -m unleak.families.nano.build out/nano/photos out/nano/init",
    "out/nano/base/pipeline": "unleak train recipes/nano/base.yaml",
    "out/nano/together/pipeline": "unleak train recipes/nano/together.yaml",
}


def main(path: Path) -> None:
    """Encode the recipe's clips where `unleak train` will look for them."""
    recipe = load_recipe(path)
    for folder, maker in (
        (recipe.data.photos, "python recipes/nano/photos.py out/nano/photos"),
        (recipe.model, _MAKERS.get(recipe.model, "the recipe before this one")),
    ):
        if not Path(folder).is_dir():
            sys.exit(f"{path} needs {folder}, which is missing: {maker} makes it (`make nano` runs all in order)")
    assert recipe.data.cache is not None, "the recipe has no cache"
    vae = AutoencoderKLTemporalDecoder.from_pretrained(recipe.model, subfolder="vae")
    code, dataset = read_code(vae), open_dataset(recipe.data)
    build_cache(
        cache_folder(recipe.data, dataset, vae),
        dataset,
        lambda video: rearrange(
            code.encode(rearrange(video, "b f c h w -> (b f) c h w")), "(b f) c h w -> b c f h w", b=len(video)
        ),
        batch=64,
        progress=lambda done, total: print(f"\rlatent cache: {done} of {total} clips", end="", flush=True),
    )
    print()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
