from pathlib import Path

import pytest

from tests.golden.case import Case

NOT_BUILT = ()
HERE = Path(__file__).parent / "cases"
DONE = pytest.StashKey[list[Case]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", type=Path, default=HERE, help="folder of recorded cases (default: the committed ones)")


def recorded(config: pytest.Config) -> list[Path]:
    # The option is unknown where this file is met only while tests are being collected.
    return sorted(Path(config.getoption("golden", default=HERE)).glob("*.json"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case_path" in metafunc.fixturenames:
        paths = [path for path in recorded(metafunc.config) if not path.stem.startswith(NOT_BUILT)]
        metafunc.parametrize("case_path", paths, ids=[path.stem for path in paths])


@pytest.fixture
def done(pytestconfig: pytest.Config) -> list[Case]:
    return pytestconfig.stash.setdefault(DONE, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    done = config.stash.get(DONE, [])
    if not done:
        return
    errors = {f"{case.name} {output}": error for case in done for output, error in case.errors.items()}
    defects = sum(len(case.defects) for case in done)
    waiting = [path.stem for path in recorded(config) if path.stem.startswith(NOT_BUILT)]
    terminalreporter.section("golden")
    terminalreporter.line(
        f"{len(done)} cases, {len(errors)} output tensors compared; {defects} known defects of the reference set apart."
    )
    if errors:
        worst = max(errors, key=errors.__getitem__)
        terminalreporter.line(f"Largest error: {errors[worst]:.1e} of the range ({worst}).")
    terminalreporter.line(f"Not built yet, not run: {len(waiting)} cases: {', '.join(waiting) or 'none'}.")
