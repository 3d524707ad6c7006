"""What to do to a pipeline's sampling: frozen, so that copies of a pipeline may share it."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from unleak.core.initial import InitialNoise
from unleak.core.process import Level, NoiseProcess
from unleak.core.start import Start

__all__ = ["Mode", "Plan", "Strategy", "UnleakNote", "UnleakWarning"]

Mode = Literal["auto", "rescale", "truncate"]
"""What becomes of the steps above a start: spaced anew below it (`rescale`) or left out (`truncate`). `auto` rescales,
and truncates where a model may know no other levels than those of its schedule: with few steps, or distilled."""


class UnleakWarning(UserWarning):
    """Something asked of unleak cannot take effect, and sampling goes on without it."""


class UnleakNote(UserWarning):
    """What unleak chose by itself."""


@runtime_checkable
class Strategy(Protocol):
    """A training-free fix that acts while a pipeline is called, alone or beside a start."""

    def fits(self, pipeline: type, seam: Any, process: NoiseProcess | None = None) -> None:
        """Raise ValueError if this class of pipelines, or its noise process where that is known, does not allow it."""

    def check(self, pipe: Any, seam: Any) -> None:
        """Raise ValueError if this pipeline does not allow it: what `fits` says, and what only its parts tell."""

    def attached(self, pipe: Any, seam: Any, arguments: dict[str, Any]) -> AbstractContextManager[None]:
        """Act while the pipeline is called with `arguments` (by name, defaults included), and restore what it touched.

        An argument that is set in `arguments` before the body is given to the pipeline in place of the caller's.
        """


@dataclass(frozen=True)
class Plan:
    """Start at `start` (None: where the pipeline does), from `init`; `mode` says what becomes of the steps above."""

    start: Start | None
    init: InitialNoise
    mode: Mode
    strategies: tuple[Strategy, ...] = ()
    few: "Plan | None" = None
    """What is done instead in a call of few steps, which keep to their own noise levels; None: the same."""

    def level(self, process: NoiseProcess) -> Level:
        """Return the level to start from on this process; ValueError if it has no such level.

        For a start that leaves out steps of the schedule, as for none, it is the noisiest.
        """
        if self.start is None or self.start.unit == "step":
            return process.noisiest
        return self.start.resolve(process)
