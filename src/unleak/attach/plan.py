"""What to do to a pipeline's sampling: frozen, so that copies of a pipeline may share it."""

from dataclasses import dataclass
from typing import Literal

from unleak.core.initial import InitialNoise
from unleak.core.process import Level, NoiseProcess
from unleak.core.start import Start

__all__ = ["Mode", "Plan", "UnleakWarning"]

Mode = Literal["rescale", "truncate"]


class UnleakWarning(UserWarning):
    """Something asked of unleak cannot take effect, and sampling goes on without it."""


@dataclass(frozen=True)
class Plan:
    """Start at `start` (None: where the pipeline does), from `init`; `mode` says what becomes of the steps above."""

    start: Start | None
    init: InitialNoise
    mode: Mode

    def level(self, process: NoiseProcess) -> Level:
        """The level to start from on this process; ValueError if it has no such level."""
        return self.start.resolve(process) if self.start else process.noisiest
