"""The metrics of single videos: one function each, by name. Every command, page and study reads this list.

A metric is a function of a `Video` with the decorator `metric` (also `unleak.metric`):

    @metric("brightness", label="brightness", unit="grey levels")
    def brightness(video):
        return video.frames.mean()

From outside the package it is registered the same way: in a Python file given to `--extend`, or in a plugin module of
an installed package (`unleak.core.plugins`).
"""

import math
import runpy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from unleak.core.plugins import load_plugins
from unleak.measure.video import Video

__all__ = ["Metric", "extend", "measured", "metric", "metric_names", "metrics", "parse_metrics"]

Measure = Callable[[Video], float | int | None]
Study = Literal["evaluate", "compare"]

STUDIES: tuple[Study, ...] = ("evaluate", "compare")


@dataclass(frozen=True)
class Metric:
    """A number that can be measured on one video."""

    name: str
    """Key in JSON files and heading in tables; a Python identifier."""
    label: str
    """The same for people."""
    unit: str
    """Empty for a number without a unit."""
    measure: Measure
    """Return the value, or None for a video that has none."""
    needs: tuple[str, ...] = ()
    """Attributes of `Video` that must not be None, such as `image`; without them the metric is left out."""
    better: Literal["higher", "lower"] | None = None
    """None where neither is better by itself, as for motion."""
    by: Literal["flow", "features"] | None = None
    """The estimator that decides the number; its name is shown beside it."""
    studies: tuple[Study, ...] = STUDIES
    """The studies that measure it without being asked to."""
    of_references: bool = False
    """Whether real videos are measured too, to compare with."""

    @property
    def heading(self) -> str:
        """Label and unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def about(self) -> str:
        """Return what the metric says, in a sentence: the first paragraph of the function's docstring."""
        return " ".join((self.measure.__doc__ or "").partition("\n\n")[0].split())

    def fits(self, video: Video) -> bool:
        """Return whether `video` has everything the metric needs."""
        return all(getattr(video, need) is not None for need in self.needs)


_METRICS: dict[str, Metric] = {}
_ATTRIBUTES = frozenset({field.name for field in fields(Video)} | {"reader"})


def metric(
    name: str,
    *,
    label: str,
    unit: str = "",
    needs: Iterable[str] = (),
    better: Literal["higher", "lower"] | None = None,
    by: Literal["flow", "features"] | None = None,
    studies: Iterable[Study] = STUDIES,
    of_references: bool = False,
) -> Callable[[Measure], Measure]:
    """Register the decorated function as the metric `name`; the arguments are the fields of `Metric`.

    Raises ValueError for a name that is taken or no identifier, and for a need that `Video` does not have.
    """
    if not name.isidentifier() or name != name.lower():
        raise ValueError(f"metric {name!r}: give a name of small letters, digits and _")
    if unknown := sorted(set(needs) - _ATTRIBUTES):
        raise ValueError(f"metric {name}: a video has no {unknown[0]!r}; it has {', '.join(sorted(_ATTRIBUTES))}")

    def register(function: Measure) -> Measure:
        other = _METRICS.get(name)
        if other is not None and _origin(other.measure) != _origin(function):
            raise ValueError(f"metric {name} exists already (in {_origin(other.measure)[0]}); choose another name")
        _METRICS[name] = Metric(name, label, unit, function, tuple(needs), better, by, tuple(studies), of_references)
        return function

    return register


def metrics() -> Mapping[str, Metric]:
    """Return every metric by name: those of the package first, then those of plugins (`unleak.core.plugins`)."""
    _import_own()
    load_plugins()
    return MappingProxyType(_METRICS)


def metric_names(study: Study) -> tuple[str, ...]:
    """Return the metrics that `study` measures without being asked to."""
    return tuple(name for name, one in metrics().items() if study in one.studies)


def parse_metrics(text: str | None, study: Study) -> tuple[str, ...]:
    """Return the metrics in a text with commas; None: the usual ones of `study`. ValueError for an unknown one."""
    if text is None:
        return metric_names(study)
    names = tuple(dict.fromkeys(one.strip() for one in text.split(",") if one.strip()))
    known = metrics()
    if unknown := [name for name in names if name not in known] or ([] if names else [text]):
        raise ValueError(f"metric {unknown[0]!r} is unknown; give some of {', '.join(known)}")
    return names


def measured(video: Video, names: Iterable[str]) -> dict[str, float | None]:
    """Return the value of each metric that fits `video`; None where the metric found none, or none that is finite."""
    known = metrics()
    found: dict[str, float | None] = {}
    for name in names:
        if known[name].fits(video):
            value = known[name].measure(video)
            found[name] = None if value is None or not math.isfinite(value) else float(value)
    return found


def extend(file: str | Path) -> None:
    """Run a Python file that registers metrics of its own. The file is a program: run only what you trust.

    Raises ValueError if there is no such file, or if it fails.
    """
    file = Path(file)
    if not file.is_file():
        raise ValueError(f"{file}: no such file; give a Python file that registers metrics")
    metrics()  # so that a name which the package has already is refused here
    try:
        runpy.run_path(str(file))
    except Exception as error:
        raise ValueError(f"{file}: cannot be run ({type(error).__name__}: {error})") from error


def _origin(function: Measure) -> tuple[str, str]:
    """Return the place of a function: a file that is run twice registers the same metric again."""
    code = getattr(function, "__code__", None)
    return getattr(code, "co_filename", ""), getattr(function, "__qualname__", repr(function))


@cache
def _import_own() -> None:
    import unleak.measure.metrics  # noqa: F401 - importing it registers the package's own
