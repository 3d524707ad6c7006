"""Canvases: pieces of photos, larger than a frame, on which nano's clips are cut out.

    python recipes/nano/canvases.py PHOTOS OUT [--split train] [--count 30]

The camera rests or pans in one of eight directions by 2 px a frame. All frames are windows of the canvas at even
offsets, and the encoder is a linear code of 8x8 patches (`unleak.families.nano.autoencoder`). So one convolution of
stride 2 encodes every frame of all nine clips of a canvas, and E[x_0 | x_t] over the motions is known exactly: see
pretrain.py.

OUT/code.safetensors holds the code (fitted to the photos when it is missing), OUT/canvases/SPLIT/NNNN.npy holds 100
canvases each: uint8 [100, 3, 172, 172].
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
from unleak.families.nano.autoencoder import PATCH, PatchCode, principal_code

SIZE = 128
NUM_FRAMES = 12
SPEED = 2  # px/frame, along each axis that moves
CHANNELS = 16
WHITENING = 0.75
# Where the content goes; (0, 0) rests.
MOTIONS = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
_REACH = SPEED * (NUM_FRAMES - 1)  # pixels that a pan needs on each side
SIDE = SIZE + 2 * _REACH
_PER_FILE = 100

# [motion, frame, row] and [motion, frame, column] -> where the stride-2 code of a canvas holds it; windows move against
# the content.
_CELLS = torch.arange(SIZE // PATCH) * (PATCH // SPEED)
_PATHS = (NUM_FRAMES - 1) - torch.tensor(MOTIONS)[:, None, :] * torch.arange(NUM_FRAMES)[:, None]
_COLUMNS, _ROWS = _PATHS[..., 0, None] + _CELLS, _PATHS[..., 1, None] + _CELLS


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

    def draw(self, rng: np.random.Generator) -> Float[Tensor, "3 172 172"]:
        """Draw one canvas in [-1, 1]: a square of half to all of a photo's short side."""
        photo = self.photos[rng.integers(len(self.photos))]
        side = int(min(photo.shape[1:]) * math.exp(rng.uniform(math.log(0.5), 0)))
        y, x = (rng.uniform(0, 1, 2) * (np.array(photo.shape[1:]) - side)).astype(int)
        piece = photo[None, :, y : y + side, x : x + side].float() / 127.5 - 1
        canvas = F.interpolate(piece, size=(SIDE, SIDE), mode="bicubic", antialias=True, align_corners=False)[0]
        return (self._vary(canvas, rng) if self.varied else canvas).clamp(-1, 1).contiguous()

    @staticmethod
    def _vary(canvas: Tensor, rng: np.random.Generator) -> Tensor:
        if rng.random() < 0.4:
            canvas = canvas[torch.from_numpy(rng.permutation(3))]
        if rng.random() < 0.5:
            mean = canvas.mean((1, 2), keepdim=True)
            canvas = mean + (canvas - mean) * rng.uniform(0.7, 1.3) + rng.uniform(-0.2, 0.2)
        return canvas


def clips(code: PatchCode, canvases: Float[Tensor, "b 3 172 172"]) -> Float[Tensor, "b 9 12 16 16 k"]:
    """Return the latents of the nine clips of each canvas; motion 0 rests."""
    dense = F.conv2d(canvases, code.project, code.offset, stride=SPEED).permute(0, 2, 3, 1)
    return dense[:, _ROWS[..., :, None], _COLUMNS[..., None, :]]


def frames(canvas: Float[Tensor, "3 172 172"], motion: int) -> Float[Tensor, "12 3 128 128"]:
    """Return the pixels of one clip of a canvas."""
    x, y = _COLUMNS[motion, :, 0] * SPEED, _ROWS[motion, :, 0] * SPEED
    return torch.stack([canvas[:, b : b + SIZE, a : a + SIZE] for a, b in zip(x.tolist(), y.tolist(), strict=True)])


def load_code(out: Path, canvases: Canvases | None = None) -> PatchCode:
    """Load OUT/code.safetensors; fit and write it first when it is missing and `canvases` are given."""
    path = out / "code.safetensors"
    if not path.exists() and canvases is not None:
        rng = np.random.default_rng(7)
        pieces = torch.stack([canvases.draw(rng)[:, :SIZE, :SIZE] for _ in range(1000)])
        code = principal_code(pieces, channels=CHANNELS, whitening=WHITENING)
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
    parser.add_argument("--count", type=int, default=30, help="files of 100 canvases each, 9 MB a file")
    options = parser.parse_args()
    load_code(options.out, Canvases(options.photos / "train", varied=True))
    canvases = Canvases(options.photos / options.split, varied=options.split == "train")
    folder = options.out / "canvases" / options.split
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(options.count):
        path = folder / f"{number:04d}.npy"
        if path.exists():
            continue
        rng = np.random.default_rng(number + (10**6 if options.split == "test" else 0))
        drawn = torch.stack([((canvases.draw(rng) + 1) * 127.5).round().byte() for _ in range(_PER_FILE)])
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.save(file, drawn.numpy())
        print(f"{path}: {_PER_FILE} canvases", flush=True)


if __name__ == "__main__":
    main()
