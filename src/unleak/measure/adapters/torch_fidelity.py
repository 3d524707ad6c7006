"""Metrics of single frames by the package `torch-fidelity`: they see pictures, and nothing of the motion."""

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from unleak.data.video import read_video
from unleak.measure.adapters.package import named, required, silent, weights_digest
from unleak.zoo.safety import check_pickle

__all__ = ["METRICS", "Frames", "TorchFidelity"]

METRICS = {
    "frechet_inception_distance": "FID of frames",
    "kernel_inception_distance_mean": "KID of frames",
    "precision": "precision of frames",
    "recall": "recall of frames",
    "inception_score_mean": "inception score of frames",
}
_ERRORS = {
    "kernel_inception_distance_mean": "kernel_inception_distance_std",
    "inception_score_mean": "inception_score_std",
}
_NEIGHBOURS = 3  # of its precision and recall


class Frames(torch.utils.data.Dataset[Tensor]):
    """The frames of videos one by one, uint8 [3 h w]; `videos`: each file, the frames taken of it, height, width."""

    def __init__(
        self,
        videos: Sequence[tuple[Path, int, int, int]],
        *,
        fps: float | None = None,
        size: tuple[int, int] | None = None,
    ):
        self.places = [(path, k) for path, count, _, _ in videos for k in range(count)]
        self.shapes = {(height, width) for _, _, height, width in videos}
        self.counts, self.fps, self.size = {path: count for path, count, _, _ in videos}, fps, size
        self._read: tuple[Path, Any] | None = None

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Tensor:
        path, k = self.places[index]
        if self._read is None or self._read[0] != path:
            self._read = path, read_video(path, num_frames=self.counts[path], fps=self.fps, size=self.size).frames
        return torch.from_numpy(self._read[1][k]).permute(2, 0, 1).contiguous()


class TorchFidelity:
    """FID, KID, precision, recall and inception score, by the network and the formulas of torch-fidelity.

    `weights`: of its Inception, `weights-inception-2015-12-05-6726825d.pth`. Raises ValueError where the package is not
    installed, and for a file that holds anything but tensors: the package would run it.
    """

    def __init__(self, weights: str | Path, *, device: str | torch.device = "cpu"):
        self.weights, self.device = Path(weights), torch.device(device)
        self.package = required("torch_fidelity", "torch-fidelity")
        digest = weights_digest(self.weights)
        self.name = f"{named('torch-fidelity')}, inception-v3-compat, weights {self.weights.name} {digest[:12]}"
        check_pickle(self.weights)
        try:
            torch.load(self.weights, map_location="meta", weights_only=True)
        except (UnpicklingError, RuntimeError, EOFError, KeyError) as error:
            raise ValueError(f"{self.weights}: no file of tensors, so torch-fidelity is not given it") from error

    def __call__(self, ours: Frames, theirs: Frames | None, *, batch_size: int = 64) -> dict[str, dict[str, Any]]:
        """By the names in `METRICS`; without `theirs` the inception score alone.

        All frames of a set have to be of one size; ValueError otherwise.
        """
        for frames in (ours, theirs):
            if frames is not None and len(frames.shapes) > 1:
                raise ValueError(f"the videos are of {len(frames.shapes)} sizes; give one for all with --size")
        fewest = len(ours) if theirs is None else min(len(ours), len(theirs))
        cuda = self.device.type == "cuda"
        options: dict[str, Any] = {} if theirs is None else {"input2": theirs, "fid": True, "kid": True}
        if theirs is not None and fewest > _NEIGHBOURS:
            options["prc"] = True
        with torch.cuda.device(self.device) if cuda else torch.device("cpu"):
            found = silent(
                lambda: self.package.calculate_metrics(
                    input1=ours,
                    isc=True,
                    isc_splits=min(10, len(ours)),
                    kid_subset_size=min(1000, fewest),
                    prc_neighborhood=_NEIGHBOURS,
                    feature_extractor="inception-v3-compat",
                    feature_extractor_weights_path=str(self.weights),
                    batch_size=batch_size,
                    cuda=cuda,
                    cache=False,
                    save_cpu_ram=True,  # no processes of its own
                    verbose=False,
                    **options,
                )
            )
        return {
            label: {
                "value": float(found[key]),
                "low": None,
                "high": None,
                "error": float(found[_ERRORS[key]]) if key in _ERRORS else None,
                "groups": len(ours),
                "of": "frames",
            }
            for key, label in METRICS.items()
            if key in found
        }
