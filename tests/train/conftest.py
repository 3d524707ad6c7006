import numpy as np
import pytest
import torch
from PIL import Image

from tests.tiny import tiny_svd
from unleak.train.config import parse_recipe


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(2):
        Image.fromarray(rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_svd().save_pretrained(folder)
    return folder


@pytest.fixture
def recipe(tmp_path, tiny_folder, photos):
    """A function: the tiny run, with changes."""

    def make(**changes):
        values = {
            "model": str(tiny_folder),
            "output": str(tmp_path / "run"),
            "data": {"kind": "synthetic", "photos": str(photos), "size": 32, "num_frames": 3, "length": 5},
            "condition": {"noise": "timenoise", "beta_m": 15.0},
            "steps": 4,
            "batch_size": 2,
            "lr": 1e-3,
            "checkpoint_every": 2,
            "log_every": 1,
        }
        return parse_recipe(values | changes)

    return make


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
