"""Train nano's decoder to invert the linear code of 8x8 patches on whole frames.

    python recipes/nano/decoder.py OUT [--steps 3000] [--start VAE]

OUT is the folder that canvases.py filled; the autoencoder is written to OUT/vae. It has to see whole frames: a decoder
that is trained on pieces finds out from the border where in its patch a pixel lies, and fails inside larger frames.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from canvases import SIDE, SIZE, load_code
from diffusers import AutoencoderKLTemporalDecoder
from jaxtyping import Float
from torch import Tensor

from unleak.families.nano.autoencoder import PatchCode, linear_autoencoder, psnr, read_code, train_decoder


def main() -> None:
    """Train, measure on held-out photos, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--start", type=Path, help="an autoencoder of this kind to begin from")
    options = parser.parse_args()
    code = load_code(options.out)
    torch.manual_seed(0)
    vae = linear_autoencoder(code, sample_size=SIZE)
    if options.start:
        begin_from(vae, AutoencoderKLTemporalDecoder.from_pretrained(options.start).float(), code)
    started, errors = time.monotonic(), []

    def report(step: int, mse: float) -> None:
        errors.append(mse)
        if (step + 1) % 100 == 0:
            quality = -10 * np.log10(np.mean(errors[-100:]) / 4)
            print(f"step {step + 1}/{options.steps} {quality:.2f} dB {time.monotonic() - started:.0f} s", flush=True)

    train_decoder(vae, code, frames(options.out, options.batch), steps=options.steps, lr=options.lr, report=report)
    vae = vae.half().float().eval()  # the precision it ships in
    held_out = next(frames(options.out, 64, split="test"))
    with torch.inference_mode():
        decoded = torch.cat([vae.decode(code.encode(x[None]), num_frames=1).sample for x in held_out])
    print(f"{psnr(decoded.clamp(-1, 1), held_out).mean():.2f} dB on held-out photos")
    vae.half().save_pretrained(options.out / "vae")


@torch.no_grad()
def begin_from(vae: AutoencoderKLTemporalDecoder, old: AutoencoderKLTemporalDecoder, code: PatchCode) -> None:
    """Take over the decoder of another code of 8x8 patches, whose codes are computed from ours by least squares."""
    theirs = read_code(old)
    pixels = torch.linalg.pinv(code.project.flatten(1).double())
    change = (theirs.project.flatten(1).double() @ pixels).float()
    weights = old.decoder.state_dict()
    first = weights["conv_in.weight"]
    weights["conv_in.bias"] = weights["conv_in.bias"] + first.sum((2, 3)) @ (theirs.offset - change @ code.offset)
    weights["conv_in.weight"] = torch.einsum("oihw,ik->okhw", first, change)
    vae.decoder.load_state_dict(weights)


def frames(out: Path, count: int, *, split: str = "train") -> Iterator[Float[Tensor, "b 3 128 128"]]:
    """Yield batches of windows of canvases."""
    files = [np.load(path, mmap_mode="r") for path in sorted((out / "canvases" / split).glob("[0-9]*.npy"))]
    rng = np.random.default_rng(0)
    while True:
        windows = []
        for _ in range(count):
            file = files[rng.integers(len(files))]
            y, x = rng.integers(0, SIDE - SIZE + 1, 2)
            window = torch.from_numpy(file[rng.integers(len(file)), :, y : y + SIZE, x : x + SIZE].copy())
            windows.append(window.flip(2) if rng.random() < 0.5 else window)
        yield torch.stack(windows).float() / 127.5 - 1


if __name__ == "__main__":
    main()
