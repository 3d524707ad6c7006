"""The registry of fixes: text forms, and fixes from outside the package."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from typing import Any

import pytest

import unleak
from unleak.attach.plan import Strategy
from unleak.attach.strategies import registry
from unleak.attach.strategies.registry import Fix, Number, fix_named, fixes, parse_fix, parse_fixes, register_fix
from unleak.core import plugins
from unleak.core.start import Start


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("low-pass", lambda: unleak.LowPass()),
        ("low-pass=0.25", lambda: unleak.LowPass(0.25, (0.0, 0.1))),
        ("low-pass=0.25:0.3", lambda: unleak.LowPass(0.25, (0.0, 0.3))),
        (" low-pass = 0.25 : 0.3 ", lambda: unleak.LowPass(0.25, 0.3)),
        ("condition-noise=0.2", lambda: unleak.ConditionNoise(0.2)),
        ("condition-noise=0.2:0.5", lambda: unleak.ConditionNoise(0.2, (0.0, 0.5))),
        ("guidance-interval=sigma=1..sigma=100", lambda: unleak.GuidanceInterval(high="sigma=100", low="sigma=1")),
        ("guidance-interval=..0.9T", lambda: unleak.GuidanceInterval(high=Start.fraction(0.9))),
        ("guidance-interval=0.1T..", lambda: unleak.GuidanceInterval(low="0.1T")),
    ],
)
def test_the_text_form_means_the_strategy(text: str, expected: Any) -> None:
    assert parse_fix(text) == expected()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blur", r"there is no fix 'blur': choose compress, motion-amplitude, .*low-pass, condition-noise"),
        ("low-pass=", None),
        ("low-pass=x", r"fix 'low-pass=x': FACTOR 'x' is not a number; write low-pass\[=FACTOR\[:SHARE\]\]"),
        ("low-pass=2", "FACTOR 2 is outside 0.01 to 0.99"),
        ("low-pass=nan", "FACTOR nan is outside"),
        ("low-pass=0.2:0.1:3", "3 arguments are given, and it takes at most 2"),
        ("low-pass=:0.1", "FACTOR is empty"),
        ("condition-noise", r"BETA is missing; write condition-noise=BETA\[:SHARE\[:ARGUMENT\]\]"),
        ("condition-noise=-1", "BETA -1 is outside 0 to 1000"),
        ("guidance-interval", r"needs a limit.*write guidance-interval=\[LOW\]\.\.\[HIGH\]"),
        ("guidance-interval=0.9..", "is ambiguous"),
        ("guidance-interval=0.9T", "is missing; write guidance-interval="),
        ("guidance-interval=..0.9", "ambiguous: 0.9T or sigma=0.9"),
    ],
)
def test_what_is_not_understood_is_said(text: str, message: str | None) -> None:
    if message is None:
        assert parse_fix(text) == parse_fix(text.rstrip("="))
        return
    with pytest.raises(ValueError, match=message) as error:
        parse_fix(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("fix", fixes(), ids=lambda fix: fix.name)
def test_every_entry_says_what_it_is(fix: Fix) -> None:
    strategy = fix.load()
    assert fix.help.endswith(".")
    assert len(fix.help) < 90
    assert fix.syntax.startswith(fix.name)
    for parameter in fix.parameters:
        assert parameter.name in strategy.__dataclass_fields__
        assert parameter.help
        assert parameter.required or parameter.metavar in fix.syntax.replace("[", "")


@pytest.mark.parametrize("fix", fixes(), ids=lambda fix: fix.name)
def test_the_declared_defaults_and_ranges_are_those_of_the_strategy(fix: Fix) -> None:
    required = {p.name: (p.low + p.high) / 2 for p in fix.parameters if p.required}
    if fix.name == "guidance-interval":
        required = {"high": "0.9T"}
    for parameter in fix.parameters:
        if not isinstance(parameter, Number):
            continue
        others = required | ({"factor": 0.5} if fix.name == "low-pass" else {})
        if parameter.default is not None:
            others.pop(parameter.name, None)
            assert fix.load()(**others) == fix.load()(**others | {parameter.name: parameter.default})
        for end in (parameter.low, parameter.high):
            assert isinstance(fix.load()(**others | {parameter.name: end}), Strategy)


def test_several_fixes_keep_their_order() -> None:
    found = parse_fixes(["guidance-interval=..0.9T", "low-pass=0.5"])
    assert [type(one).__name__ for one in found] == ["GuidanceInterval", "LowPass"]


class Nothing:
    """A fix of somebody else's that changes nothing."""

    def __init__(self, amount: float) -> None:
        self.amount = amount

    def fits(self, pipeline: type, seam: Any, process: Any = None) -> None:
        pass

    def check(self, pipe: Any, seam: Any) -> None:
        pass

    @contextmanager
    def attached(self, pipe: Any, seam: Any, arguments: Mapping[str, Any]) -> Iterator[None]:
        yield


def test_a_fix_can_come_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_FIXES", dict(registry._FIXES))
    register_fix(Fix("nothing", Nothing, "Change nothing.", (Number("amount", required=True, low=0, high=9),)))
    assert parse_fix("nothing=3").amount == 3
    assert fix_named("nothing").syntax == "nothing=AMOUNT"
    assert isinstance(parse_fix("nothing=3"), Strategy)
    with pytest.raises(ValueError, match="a fix 'nothing' already"):
        register_fix(Fix("nothing", Nothing, "Change nothing."))


def test_plugins_are_entry_points_and_one_that_fails_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "plugged_in.py").write_text("loaded = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    points = [EntryPoint("good", "plugged_in", "unleak.plugins"), EntryPoint("bad", "no_such_module", "unleak.plugins")]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    plugins.load_plugins.cache_clear()
    with pytest.warns(UserWarning, match=r"plugin bad \(no_such_module\) does not load: No module named"):
        plugins.load_plugins()
    assert sys.modules["plugged_in"].loaded
    plugins.load_plugins.cache_clear()


def test_the_registry_can_be_read_without_torch() -> None:
    code = (
        "import sys; from unleak.attach.strategies.registry import fixes; print([f.syntax for f in fixes()]);"
        " assert 'torch' not in sys.modules and 'diffusers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_example_of_a_fix_from_outside_works(monkeypatch: pytest.MonkeyPatch) -> None:
    import runpy
    from pathlib import Path

    import torch

    from tests.attach.guided import ALL, GUIDED

    monkeypatch.setattr(registry, "_FIXES", dict(registry._FIXES))
    runpy.run_path(str(Path(__file__).parents[2] / "examples" / "extend" / "fix.py"))
    pipe = ALL["svd"].build()
    plain = ALL["svd"].call(pipe, **GUIDED["svd"])
    faded = ALL["svd"].call(unleak.apply(pipe, strategies=parse_fix("fade=0.2:0.5")), **GUIDED["svd"])
    assert not torch.equal(faded, plain)
    whole = ALL["svd"].call(unleak.apply(pipe, strategies=parse_fix("fade=1")), **GUIDED["svd"])
    assert torch.equal(whole, plain)
    with pytest.raises(ValueError, match="Fade cannot be attached to LTXImageToVideoPipeline"):
        unleak.apply(ALL["ltx"].build(), strategies=parse_fix("fade"))
