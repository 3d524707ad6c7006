"""Guidance limited to an interval of noise levels (Kynkäänniemi et al., arXiv 2404.07724)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from unleak.attach.schedule import level_of_step, process_of
from unleak.attach.seams import Seam
from unleak.attach.strategies.evaluations import Evaluation, branches_of, copy_of, evaluations, tensor_of
from unleak.core.process import NoiseProcess
from unleak.core.start import Start

__all__ = ["GuidanceInterval"]


@dataclass(frozen=True)
class GuidanceInterval:
    """Guidance only at levels within (low, high]; elsewhere the conditional prediction alone, whatever the scale.

    high, low: levels as for `start`: a Start or its text, such as `0.9T` or `sigma=5`; None: no limit on that side.
    Where the two branches are evaluated one after the other, the second is saved outside the interval.
    """

    high: Start | str | float | int | None = None
    low: Start | str | float | int | None = None

    def __post_init__(self) -> None:
        if self.high is None and self.low is None:
            raise ValueError(
                "GuidanceInterval needs a limit: high, low or both, such as GuidanceInterval(high='0.9T')."
            )
        for name in ("high", "low"):
            limit = getattr(self, name)
            if not isinstance(limit, Start | None):
                object.__setattr__(self, name, Start.parse(limit))

    def fits(self, pipeline: type, seam: Seam, process: NoiseProcess | None = None) -> None:
        """Raise ValueError if the structure of this class of pipelines does not allow it, or its noise process, where
        that is known, has no such levels."""
        branches_of(pipeline, seam, "GuidanceInterval")
        if process is None:
            return
        low, high = self.limits(process)
        if low >= high:
            raise ValueError(f"GuidanceInterval: low {self.low} is not below high {self.high} in this noise process.")

    def check(self, pipe: Any, seam: Seam) -> None:
        """Raise ValueError if this pipeline's structure does not allow it, or it has no such levels."""
        self.fits(type(pipe), seam, process_of(pipe.scheduler))

    @contextmanager
    def attached(self, pipe: Any, seam: Seam, arguments: dict[str, Any]) -> Iterator[None]:
        """Act in the body."""
        del arguments
        process = process_of(pipe.scheduler)
        low, high = self.limits(process)

        def answer(evaluation: Evaluation) -> Any:
            noise = level_of_step(pipe.scheduler, evaluation.step).flow_sigma
            if low < noise <= high * (1 + 1e-6) or evaluation.branch == "conditional":
                return evaluation.run()
            if evaluation.branch == "both":
                output = evaluation.run()
                prediction = tensor_of(output)
                half = len(prediction) // 2
                prediction[:half] = prediction[half:]
                return output
            return copy_of(evaluation.earlier)

        with evaluations(pipe, seam, answer):
            yield

    def limits(self, process: NoiseProcess) -> tuple[float, float]:
        """Return the limits as flow sigmas, which rise with the noise in every process."""
        low = self.low.resolve(process).flow_sigma if isinstance(self.low, Start) else -1.0
        high = self.high.resolve(process).flow_sigma if isinstance(self.high, Start) else 1.0
        return low, high
