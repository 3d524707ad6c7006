import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SUPPORT = Path(__file__).with_name("support.json")
RESULTS = pytest.StashKey[dict[str, dict[str, Any]]]()


@pytest.fixture
def held(request: pytest.FixtureRequest) -> Callable[[str, Any, str], None]:
    """(name of a tiny pipeline, the pipeline, promise): note that the promise held for it in this run."""
    results = request.config.stash.setdefault(RESULTS, {})

    def note(name: str, pipe: Any, promise: str) -> None:
        from unleak.attach.schedule import process_of

        about = {"pipeline": type(pipe).__name__, "scheduler": type(pipe.scheduler).__name__}
        about["process"] = process_of(pipe.scheduler).kind
        results.setdefault(name, about | {"held": []})["held"].append(promise)

    return note


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With WRITE_SUPPORT=1, what held in this run joins the results that the table of the README is made of."""
    if os.environ.get("WRITE_SUPPORT") != "1":
        return
    known = json.loads(SUPPORT.read_text()) if SUPPORT.exists() else {}
    for name, found in session.config.stash.get(RESULTS, {}).items():
        before = known.get(name, {}).get("held", [])
        known[name] = found | {"held": sorted({*before, *found["held"]})}
    SUPPORT.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
