"""Pipelines with tiny random weights: every part of the real thing, a call in a fraction of a second on a CPU."""

from tests.tiny.svd import SETTINGS, tiny_svd

__all__ = ["SETTINGS", "tiny_svd"]
