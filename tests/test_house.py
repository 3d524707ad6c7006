"""The style of the house that a linter does not know: functions fit a screen, and test modules stand alone."""

import ast
from pathlib import Path

SOURCES = Path(__file__).parents[1] / "src/unleak"
TESTS = Path(__file__).parent
MOST = 80
"""Lines of a function, docstring and signature included."""

EXCEPTIONS = {
    "families/animate_anything/pipeline.py:__call__": "a pipeline's call: the sampling loop, read top to bottom",
    "families/lvdm/pipeline.py:_generate": "a pipeline's call: the sampling loop, read top to bottom",
}


def long_functions(text: str) -> dict[str, int]:
    """Return the lines of every function in a module that has more than `MOST`, docstring and signature included."""
    found = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            if lines > MOST:
                found[node.name] = lines
    return found


def test_functions_fit_a_screen():
    found = {
        f"{path.relative_to(SOURCES).as_posix()}:{name}": lines
        for path in SOURCES.rglob("*.py")
        for name, lines in long_functions(path.read_text(encoding="utf-8")).items()
    }
    assert found.keys() - EXCEPTIONS.keys() == set(), "divide them: the workflow outside, the parts inside"
    assert EXCEPTIONS.keys() - found.keys() == set(), "these fit now: take them off the list"


def test_a_long_function_is_found():
    body = "\n".join(f"    x = {k}" for k in range(MOST))
    assert long_functions(f"def f():\n{body}\n") == {"f": MOST + 1}
    assert long_functions("def f():\n    return 1\n") == {}


def imported(text: str) -> set[str]:
    """Return the modules that a module imports, and the names that it takes from packages, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_test_modules_do_not_import_each_other():
    """What several share stands in a module of its own, which collects no tests twice."""
    found = {
        f"{path.relative_to(TESTS)} imports {name}"
        for path in TESTS.rglob("*.py")
        for name in imported(path.read_text(encoding="utf-8"))
        if name.startswith("tests.") and any(part.startswith("test_") for part in name.split("."))
    }
    assert found == set()


def test_an_import_of_a_test_module_is_found():
    assert "tests.cli.test_tune" in imported("from tests.cli import test_tune")
    assert "tests.cli.test_tune" in imported("from tests.cli.test_tune import x")
