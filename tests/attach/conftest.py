from typing import Any

import pytest

RESULTS = pytest.StashKey[dict[str, Any]]()


@pytest.fixture
def results(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Pipeline class -> tiny pipeline -> the promises that held for it in this run."""
    return request.config.stash.setdefault(RESULTS, {})
