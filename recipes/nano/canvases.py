"""Clips of nano's law in bulk: of every canvas (a piece of a photo) the code of all seven clips that it can become.

    python recipes/nano/canvases.py PHOTOS OUT [--split train] [--count 30]

The camera rests, pans by 1.5 px/frame (content to the right, left, down, up) or zooms by 2 % a frame (in, out). The
encoder is a linear code (`unleak.families.nano.patch16`), so a clip's latents cost one strided convolution. With
all seven clips of a canvas at hand, E[x_0 | x_t] over the motions is known exactly: see pretrain.py.

OUT/code.safetensors holds the code (fitted to the photos when it is missing), OUT/latents/SPLIT/NNNN.npy 100 canvases
each: float16 [100, 67, 8, 8, 64], frame 0 and then frames 1 to 11 of the six motions.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from unleak.data.atomic import written_whole
from unleak.data.synthetic import PHOTO_SUFFIXES
from unleak.families.nano.autoencoder import PatchCode
from unleak.families.nano.patch16 import principal_code

SIZE = 128
NUM_FRAMES = 12
SPEED = 1.5  # px/frame
ZOOM = 0.02  # log zoom per frame
CHANNELS = 64
PANS = ((1, 0), (-1, 0), (0, 1), (0, -1))  # where the content goes: right, left, down, up
MOTIONS = 1 + len(PANS) + 2
_DRAWN = 2  # canvas pixels per clip pixel, so that motion below a pixel is visible
_REACH = math.ceil(_DRAWN * SPEED * (NUM_FRAMES - 1))  # canvas pixels that a pan needs on each side
_SIDE = _DRAWN * SIZE + 2 * _REACH
assert _DRAWN * SIZE * math.exp(ZOOM * (NUM_FRAMES - 1)) <= _SIDE, "zooming out leaves the canvas"
_PER_FILE = 100

FRAMES = torch.tensor([[0] * NUM_FRAMES] + [[0, *range(1 + 11 * m, 12 + 11 * m)] for m in range(MOTIONS - 1)])
"""[motion, frame] -> which of a canvas's 67 frames it is."""


class Canvases:
    """Draws canvases from the photos of a folder; with `varied`, mirrored, turned and recoloured ones too."""

    def __init__(self, photos: Path, *, varied: bool):
        self.varied = varied
        self.photos = []
        for path in sorted(p for p in photos.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES):
            with Image.open(path) as image:
                pixels = torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)
            self.photos.append(pixels)
        if not self.photos:
            raise ValueError(f"no photo in {photos}: expected JPEG, PNG or WebP files there")

    def draw(self, rng: np.random.Generator) -> Float[Tensor, "3 322 322"]:
        """Draw one canvas in [-1, 1]: a square of half to all of a photo's short side."""
        photo = self.photos[rng.integers(len(self.photos))].float() / 127.5 - 1
        side = int(min(photo.shape[1:]) * math.exp(rng.uniform(math.log(0.5), 0)))
        y, x = (rng.uniform(0, 1, 2) * (np.array(photo.shape[1:]) - side)).astype(int)
        piece = photo[None, :, y : y + side, x : x + side]
        canvas = F.interpolate(piece, size=(_SIDE, _SIDE), mode="bicubic", antialias=True, align_corners=False)[0]
        return (self._vary(canvas, rng) if self.varied else canvas).clamp(-1, 1).contiguous()

    @staticmethod
    def _vary(canvas: Tensor, rng: np.random.Generator) -> Tensor:
        if rng.random() < 0.5:
            canvas = canvas.flip(2)
        if rng.random() < 0.15:
            canvas = canvas.flip(1)
        if rng.random() < 0.2:
            canvas = canvas.transpose(1, 2)
        if rng.random() < 0.4:
            canvas = canvas[torch.from_numpy(rng.permutation(3))]
        if rng.random() < 0.5:
            mean = canvas.mean((1, 2), keepdim=True)
            canvas = mean + (canvas - mean) * rng.uniform(0.7, 1.3) + rng.uniform(-0.2, 0.2)
        return canvas


def frames(canvas: Float[Tensor, "3 322 322"]) -> Float[Tensor, "67 3 128 128"]:
    """Return the frames of the seven clips of a canvas; `FRAMES` says which is whose."""
    side, step = _DRAWN * SIZE, round(_DRAWN * SPEED)

    def window(x: int, y: int) -> Tensor:
        return canvas[:, _REACH + y : _REACH + y + side, _REACH + x : _REACH + x + side]

    views = [window(0, 0)]
    for dx, dy in PANS:  # the window moves against the content
        views += [window(-k * step * dx, -k * step * dy) for k in range(1, NUM_FRAMES)]
    axis = (torch.arange(side) + 0.5 - side / 2) / (_SIDE / 2)
    for sign in (1, -1):
        for k in range(1, NUM_FRAMES):
            scaled = axis * math.exp(-sign * ZOOM * k)
            y, x = torch.meshgrid(scaled, scaled, indexing="ij")
            grid = torch.stack([x, y], -1)[None]
            views.append(F.grid_sample(canvas[None], grid, padding_mode="border", align_corners=False)[0])
    return F.avg_pool2d(torch.stack(views), _DRAWN)


def load_code(out: Path, canvases: Canvases | None = None) -> PatchCode:
    """Load OUT/code.safetensors; fit and write it first when it is missing and `canvases` are given."""
    path = out / "code.safetensors"
    if not path.exists() and canvases is not None:
        rng = np.random.default_rng(7)
        pieces = [F.avg_pool2d(canvases.draw(rng)[None], _DRAWN)[..., :160, :160] for _ in range(1200)]
        code = principal_code(torch.cat(pieces), channels=CHANNELS)
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as temporary:
            save_file({"project": code.project, "offset": code.offset}, temporary)
    stored = load_file(path)
    return PatchCode(stored["project"], stored["offset"])


def main() -> None:
    """Write what is missing of `count` files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder with train/ and test/ (recipes/nano/photos.py writes it)")
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--count", type=int, default=30, help="files of 100 canvases each, 55 MB and 15 s a file")
    options = parser.parse_args()
    code = load_code(options.out, Canvases(options.photos / "train", varied=True))
    canvases = Canvases(options.photos / options.split, varied=options.split == "train")
    folder = options.out / "latents" / options.split
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(options.count):
        path = folder / f"{number:04d}.npy"
        if path.exists():
            continue
        rng = np.random.default_rng(number + (10**6 if options.split == "test" else 0))
        latents = [code.encode(frames(canvases.draw(rng))).permute(0, 2, 3, 1).half() for _ in range(_PER_FILE)]
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.save(file, torch.stack(latents).numpy())
        print(f"{path}: {_PER_FILE} canvases", flush=True)


if __name__ == "__main__":
    main()
