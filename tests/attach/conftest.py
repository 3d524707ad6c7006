import json
import os
from pathlib import Path
from typing import Any

import pytest

SUPPORT = Path(__file__).with_name("support.json")
RESULTS = pytest.StashKey[dict[str, dict[str, Any]]]()


@pytest.fixture
def results(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    """Tiny pipeline -> its class, scheduler and process, and the promises that held for it in this run."""
    return request.config.stash.setdefault(RESULTS, {})


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With WRITE_SUPPORT=1, what held in this run joins the results that the table of the README is made of."""
    if os.environ.get("WRITE_SUPPORT") != "1":
        return
    known = json.loads(SUPPORT.read_text()) if SUPPORT.exists() else {}
    for name, found in session.config.stash.get(RESULTS, {}).items():
        before = known.get(name, {}).get("held", [])
        known[name] = found | {"held": sorted({*before, *found["held"]})}
    SUPPORT.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
