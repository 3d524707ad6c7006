import os
import sys
from pathlib import Path

# Models this small gain nothing from a second thread, and on a busy machine threads wait for each other, spinning.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import huggingface_hub.constants  # noqa: F401, reads its settings before a command changes them
import pytest

STANDINS = Path(__file__).parent / "standins"
MODULES = ("cdfvd", "torch_fidelity", "vbench", "vbench2_beta_i2v")


@pytest.fixture
def tiny_svd():
    """A fresh StableVideoDiffusionPipeline with tiny random weights (shared between tests: change none)."""
    from tests.tiny import tiny_svd

    return tiny_svd()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """The same as a folder on disk named `tiny`: 4 frames of 64x64 by default, of 16x16 in no time."""
    from tests.tiny import tiny_svd

    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_svd().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _download_bars():
    """Put back the download bars that a command which ran in this process has turned off."""
    yield
    if os.environ.pop("HF_HUB_DISABLE_PROGRESS_BARS", None):
        from huggingface_hub.utils import enable_progress_bars

        enable_progress_bars()


@pytest.fixture
def packages(monkeypatch):
    """Stand-ins for other people's packages, in their place."""
    for name in [name for name in sys.modules if name.partition(".")[0] in MODULES]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(STANDINS))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(STANDINS), os.environ.get("PYTHONPATH", "")]))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] in MODULES]:
        sys.modules.pop(name)
