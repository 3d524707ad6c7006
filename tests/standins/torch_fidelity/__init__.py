"""Stands in for torch-fidelity 0.4.0: its signature and its keys; the distance is that of mean colours."""

import torch

KNOWN = {"input1", "input2", "cuda", "batch_size", "isc", "fid", "kid", "prc", "isc_splits", "kid_subset_size",
         "prc_neighborhood", "feature_extractor", "feature_extractor_weights_path", "cache", "save_cpu_ram",
         "verbose"}  # fmt: skip


def calculate_metrics(**kwargs):
    assert set(kwargs) <= KNOWN
    assert (kwargs["cache"], kwargs["cuda"], kwargs["feature_extractor"]) == (False, False, "inception-v3-compat")
    torch.load(kwargs["feature_extractor_weights_path"], weights_only=False)
    sets = []
    for name in ("input1", "input2"):
        if (data := kwargs.get(name)) is not None:
            frames = torch.stack([data[k] for k in range(len(data))])
            assert (frames.dtype, frames.shape[1]) == (torch.uint8, 3)
            sets.append(frames.float().mean((0, 2, 3)))
    found = {"inception_score_mean": 1.5, "inception_score_std": 0.1}
    if kwargs.get("fid"):
        assert kwargs["kid_subset_size"] <= len(kwargs["input2"])
        found["frechet_inception_distance"] = float((sets[0] - sets[1]).square().sum())
        found |= {"kernel_inception_distance_mean": 0.25, "kernel_inception_distance_std": 0.05}
    if kwargs.get("prc"):
        found |= {"precision": 0.5, "recall": 0.75, "f_score": 0.6}
    return found
