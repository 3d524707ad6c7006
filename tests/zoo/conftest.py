import pytest

from tests.zoo.hub_server import Hub

TOKEN = "hf_secret"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub on this machine in place of the real one, with a store beside it; caches are empty, waits short."""
    import time

    from huggingface_hub import constants

    hub = Hub(store=Hub().start()).start()
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template.replace(constants.ENDPOINT, hub.address))
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("UNLEAK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    yield hub
    hub.stop()
    hub.store.stop()
