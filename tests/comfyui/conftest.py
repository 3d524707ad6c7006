import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def engine(tmp_path_factory):
    """The real ComfyUI, with the pack as it is built and tiny models."""
    home = os.environ.get("UNLEAK_COMFYUI")
    if not home:
        pytest.skip("runs in `make comfyui-test`, which makes an environment with ComfyUI in it")
    from tests.comfyui.engine.client import Engine
    from unleak.comfyui.pack import install

    base = tmp_path_factory.mktemp("comfyui")
    (base / "custom_nodes").mkdir()
    install(base)
    running = Engine(Path(home).resolve(), base)
    running.start()
    yield running
    running.stop()
