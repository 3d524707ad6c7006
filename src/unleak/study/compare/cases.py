"""The cases of a comparison: ways to make the same videos, as people write them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from unleak.animate.call import Call
from unleak.animate.settings import Settings
from unleak.attach.plan import Mode, Strategy
from unleak.attach.strategies.registry import fixes, parse_fixes
from unleak.zoo.classes import pipeline_class, seam_of_class
from unleak.zoo.registry import MODELS, ModelSpec

__all__ = ["Case", "cases_of", "default_cases", "usual_cases"]

_OPTIONS = ("model", "start", "init", "mode", "motion", "guidance", "steps", "lora")


@dataclass(frozen=True)
class Case:
    """One way to make the videos; None means as the command or the model has it. Without a start it is the full one."""

    label: str
    model: str | None = None
    start: str | None = None
    init: str = "standard"
    mode: str = "auto"
    motion: str | None = None
    guidance: str | None = None
    steps: int | None = None
    fixes: tuple[str, ...] = ()
    """Fixes beside the start, each as the registry reads it: `low-pass=0.25:0.1`, `compress`."""
    loras: tuple[str, ...] = ()
    """PATH or PATH:SCALE each."""

    @classmethod
    def parse(cls, text: str) -> "Case":
        """Read `LABEL: NAME=VALUE FIX[=ARGS] ...`; the label may be left out. Raises ValueError for anything else."""
        label, _, rest = f"{text} ".rpartition(": ")
        names = [one.name for one in fixes()]
        values: dict[str, Any] = {}
        others: dict[str, str] = {}
        for word in rest.split():
            name, equals, value = word.partition("=")
            if not (name in names or (equals and value and name in _OPTIONS)):
                raise ValueError(
                    f"--case {text!r}: {word} is not understood; give NAME=VALUE of {', '.join(_OPTIONS)}, or a fix: "
                    + ", ".join(names)
                )
            if name in values or name in others:
                raise ValueError(f"--case {text!r}: {name} is given twice")
            (others if name in names else values)[name] = word if name in names else value
        if "lora" in values:
            values["loras"] = tuple(one for one in values.pop("lora").split(",") if one)
        steps = values.get("steps")
        if steps is not None:
            if not (steps.isascii() and steps.isdigit() and 0 < int(steps) <= 10_000):
                raise ValueError(f"--case {text!r}: steps={steps} is no whole number from 1 to 10000")
            values["steps"] = int(steps)
        if (mode := values.get("mode", "auto")) not in get_args(Mode):
            raise ValueError(f"--case {text!r}: mode {mode} is unknown; give {', '.join(get_args(Mode))}")
        case = cls(label.strip() or rest.strip() or "plain", **values, fixes=tuple(others.values()))
        try:
            parse_fixes(case.fixes)
        except ValueError as error:
            raise ValueError(f"--case {text!r}: {error}") from None
        return case

    @property
    def strategies(self) -> tuple[Strategy, ...]:
        """Return the fixes as `unleak.apply` takes them."""
        return parse_fixes(self.fixes)


def default_cases(
    *, start: str | None, analytic: bool, guided: bool, low_pass: bool, timenoise: str | None
) -> list[Case]:
    """Return plain, the recommended start, the same with Analytic-Init, and the rivals that this model allows."""
    cases = [Case("plain")]
    if start:
        cases.append(Case(f"start {start}", start=start))
    if start and analytic:
        cases.append(Case(f"start {start}, Analytic-Init", start=start, init="analytic"))
    if guided:
        cases.append(Case("no guidance", guidance="1"))
    if low_pass:
        cases.append(Case("low-pass image", fixes=("low-pass=0.25",)))
    if timenoise:
        cases.append(Case("TimeNoise checkpoint", model=timenoise))
    return cases


def usual_cases(spec: ModelSpec) -> list[Case]:
    """Return the cases that are compared where none are given: `default_cases` for what this model allows."""
    pipeline = pipeline_class(spec.pipeline)
    seam, call = seam_of_class(pipeline), Call.of(pipeline)
    start = Settings.for_model(spec).start
    return default_cases(
        start=None if start is None else str(start),
        analytic=spec.moments is not None and seam.layout is not None,
        guided=call.name("guidance") is not None or call.name("max_guidance") is not None,
        low_pass=seam.condition is not None and seam.branches is not None,
        timenoise=_trained_with_timenoise(spec),
    )


def _trained_with_timenoise(spec: ModelSpec) -> str | None:
    """Return the listed checkpoint of the same model, made for the same videos, that was trained with TimeNoise."""
    twins = (MODELS.get(f"{spec.name}-{ending}") for ending in ("timenoise", "cil"))
    return next((twin.name for twin in twins if twin is not None and twin.defaults == spec.defaults), None)


def cases_of(
    spec: ModelSpec, cases: Sequence[Case | str] = (), *, start: str | None = None, models: str | None = None
) -> list[Case]:
    """Return the cases that are given as texts, as starts and as models with commas between them; or the usual ones.

    Raises ValueError for what is not understood, and for two cases of one name.
    """
    found = [one if isinstance(one, Case) else Case.parse(one) for one in cases]
    found += [Case(f"start {text}", start=text) for text in _list("start", start)]
    found += [Case(label, model=text) for label, text in _labelled(_list("models", models))]
    found = found or usual_cases(spec)
    labels = [one.label for one in found]
    if twice := next((label for k, label in enumerate(labels) if label in labels[:k]), None):
        raise ValueError(f"two cases are called {twice}; give each a label of its own, --case 'LABEL: ...'")
    return found


def _list(option: str, text: str | None) -> list[str]:
    if text is None:
        return []
    found = [one.strip() for one in text.split(",") if one.strip()]
    if not found:
        raise ValueError(f"--{option} {text!r}: give one or more, with commas between them")
    return found


def _labelled(models: list[str]) -> list[tuple[str, str]]:
    """Give each model a label: as much of the end of its path as distinguishes it from the others."""
    for parts in range(1, max((len(Path(text).parts) for text in models), default=0) + 1):
        labels = ["/".join(Path(text).parts[-parts:]) for text in models]
        if len(set(labels)) == len(set(models)):
            return list(zip(labels, models, strict=True))
    return [(text, text) for text in models]
