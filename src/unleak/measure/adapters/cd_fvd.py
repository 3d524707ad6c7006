"""The Frechet distances of the package `cd-fvd` (Ge et al. 2024): its networks, its preprocessing, its formula."""

from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from jaxtyping import Float, UInt8

from unleak.measure.adapters.package import named, required, silent, weights_digest

__all__ = ["CDFVD", "MODELS"]

MODELS = {"i3d": "cd-fvd (I3D)", "videomae": "cd-fvd (VideoMAE)"}
"""What the package calls a network, and what its number is called here."""

_FRAMES = {"i3d": (9, 10_000), "videomae": (16, 16)}


class CDFVD:
    """A network of cd-fvd and what goes with it. `model`: `i3d` or `videomae`; `weights`: its file.

    Raises ValueError where the package is not installed, and for weights that are not this network's.
    """

    def __init__(self, model: str, weights: str | Path, *, device: str | torch.device = "cpu"):
        assert model in MODELS
        package, weights, self.model = required("cdfvd.fvd", "cd-fvd"), Path(weights), model
        self.name = f"{named('cd-fvd')}, {model}, weights {weights.name} {weights_digest(weights)[:12]}"
        try:
            self.evaluator = silent(
                lambda: package.cdfvd(model, n_real="full", n_fake="full", ckpt_path=str(weights), device=str(device))
            )
        except (RuntimeError, KeyError, TypeError, AttributeError, EOFError, UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"{weights}: not the weights of cd-fvd's {model} ({reason[:120]})") from error

    def __call__(self, frames: UInt8[np.ndarray, "f h w 3"]) -> Float[np.ndarray, " d"]:
        """Features of one video."""
        fewest, most = _FRAMES[self.model]
        if not fewest <= len(frames) <= most:
            wanted = f"{fewest}" if fewest == most else f"{fewest} or more"
            raise ValueError(
                f"cd-fvd's {self.model} takes {wanted} frames and a video has {len(frames)}: give --num-frames 16"
            )
        self.evaluator.empty_fake_stats()
        silent(lambda: self.evaluator.add_fake_stats(frames[None]))
        mean, _ = self.evaluator.fake_stats.get_mean_cov()  # of one video: its features
        return np.asarray(mean, dtype=np.float32)

    def distance(self, x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
        """Return the package's own, between features of real videos `y` and of others `x`."""
        stats = type(self.evaluator.fake_stats)
        fake, real = stats(capture_mean_cov=True), stats(capture_mean_cov=True)
        fake.append(x)
        real.append(y)
        return float(self.evaluator.compute_fvd_from_stats(fake, real))
