import os

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest


@pytest.fixture
def tiny_svd():
    """A fresh StableVideoDiffusionPipeline with tiny random weights (shared between tests: change none)."""
    from tests.tiny import tiny_svd

    return tiny_svd()
