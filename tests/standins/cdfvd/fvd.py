"""Stands in for `cdfvd.fvd` of cd-fvd 0.1.1: its signatures, and a network that is the mean of each channel."""

import numpy as np
import torch


class FeatureStats:
    def __init__(self, capture_all=False, capture_mean_cov=False, max_items=None):
        self.num_items, self.raw_mean, self.raw_cov = 0, 0.0, 0.0

    def append(self, x):
        x = np.asarray(x, dtype=np.float32).astype(np.float64)
        self.num_items += len(x)
        self.raw_mean = self.raw_mean + x.sum(axis=0)
        self.raw_cov = self.raw_cov + x.T @ x

    def get_mean_cov(self):
        mean = self.raw_mean / self.num_items
        return mean, self.raw_cov / self.num_items - np.outer(mean, mean)


class cdfvd:  # noqa: N801
    def __init__(self, model="i3d", n_real="full", n_fake=2048, ckpt_path=None, seed=42, compute_feats=False,
                 device="cuda", half_precision=False, *args, **kwargs):  # fmt: skip
        assert (model in ("i3d", "videomae"), n_real, n_fake) == (True, "full", "full")
        print(f"Loading {model} model ...")
        self.gain = torch.load(ckpt_path, map_location=device)["gain"].item()
        self.real_stats, self.fake_stats = FeatureStats(capture_mean_cov=True), FeatureStats(capture_mean_cov=True)

    def empty_fake_stats(self):
        self.fake_stats = FeatureStats(max_items=None, capture_mean_cov=True)

    def add_fake_stats(self, fake_videos):
        assert fake_videos.ndim == 5
        assert fake_videos.dtype == np.uint8
        self.fake_stats.append(self.gain * fake_videos.mean(axis=(1, 2, 3)))

    def compute_fvd_from_stats(self, fake_stats=None, real_stats=None):
        (mean, cov), (mean_real, cov_real) = fake_stats.get_mean_cov(), real_stats.get_mean_cov()
        roots = np.sqrt(np.linalg.eigvals(cov_real @ cov).astype(complex)).real
        return np.square(mean_real - mean).sum() + np.trace(cov + cov_real) - 2 * roots.sum()
