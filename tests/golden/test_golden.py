from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest
import torch

from tests.golden.case import Case
from tests.golden.conftest import recorded

MODULES = [name for _, name, _ in iter_modules([str(Path(__file__).parent)]) if not name.startswith(("test_", "conf"))]
RUNS: dict[str, Callable[[Case], None]] = {}
for module in MODULES:
    RUNS.update(getattr(import_module(f"tests.golden.{module}"), "CASES", {}))


def test_the_folder_holds_cases(pytestconfig: pytest.Config) -> None:
    assert recorded(pytestconfig), "no recorded case (*.json) in the folder given by --golden"


def test_case(case_path: Path, done: list[Case]) -> None:
    keys = [key for key in RUNS if case_path.stem.startswith(key)]
    if not keys:
        pytest.fail(f"{case_path.stem}: no function runs this case (known: {', '.join(sorted(RUNS))})")
    case = Case(case_path)
    done.append(case)
    RUNS[max(keys, key=len)](case)
    assert case.errors, f"{case.name}: nothing was compared"
    assert not case.unaccounted(), f"{case.name}: outputs neither compared nor known defects: {case.unaccounted()}"


# The harness is shown able to fail.


@pytest.fixture
def a_case() -> Case:
    case = Case.__new__(Case)
    case.path, case.errors, case.defects = Path("toy.json"), {}, set()
    case._io = {"out.y": torch.tensor([0.0, 10.0]), "out.z": torch.tensor(2.0)}
    return case


def test_an_error_above_the_share_fails(a_case: Case) -> None:
    a_case.compare("y", torch.tensor([0.0005, 10.0]))
    with pytest.raises(AssertionError, match=r"toy y: off by 2.00e-04 of its range"):
        a_case.compare("y", torch.tensor([0.002, 10.0]))
    with pytest.raises(AssertionError, match=r"off by nan"):
        a_case.compare("y", torch.tensor([float("nan"), 10.0]))
    with pytest.raises(AssertionError, match=r"recorded \[2\]"):
        a_case.compare("y", torch.tensor([0.0]))


def test_a_forgotten_output_is_seen(a_case: Case) -> None:
    a_case.compare("y", torch.tensor([0.0, 10.0]))
    assert a_case.unaccounted() == {"z"}
    a_case.defect("z")
    assert a_case.unaccounted() == set()
