"""What the speed scripts share: clocks, and ratios with intervals from rounds in which variants take turns."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cost:
    """Seconds: of the wall clock, and of the processor (all threads of this process, or a child's own)."""

    wall: float
    cpu: float

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.wall - other.wall, self.cpu - other.cpu)


def now() -> Cost:
    """The clocks of this process."""
    return Cost(time.perf_counter(), time.process_time())


def cost(run: Callable[[], object]) -> Cost:
    """What one call costs."""
    began = now()
    run()
    return now() - began


def child_cost(*arguments: str, ends_with: int = 0) -> Cost:
    """What a fresh Python with `arguments` costs, its start included. RuntimeError if it ends with another status."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != ends_with:
        raise RuntimeError(f"{' '.join(arguments)}: {said.decode()[-500:]}")
    return Cost(time.perf_counter() - began, usage.ru_utime + usage.ru_stime)


@dataclass(frozen=True)
class Ratio:
    """Median over rounds of what one costs over what the other costs, and the interval that holds it with 95 %."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, one: Sequence[float], other: Sequence[float]) -> "Ratio":
        """From the costs of the same rounds; the interval is a percentile bootstrap over rounds."""
        ratios = np.array(one) / np.array(other)
        medians = np.median(np.random.default_rng(0).choice(ratios, (4000, len(ratios))), axis=1)
        return cls(float(np.median(ratios)), *map(float, np.quantile(medians, [0.025, 0.975])))

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def take_turns(variants: dict[str, Callable[[], Cost]], *, rounds: int, warm_up: bool = True) -> dict[str, list[Cost]]:
    """Each variant once in every round, in both orders by turns."""
    costs: dict[str, list[Cost]] = {name: [] for name in variants}
    for name in variants if warm_up else ():
        variants[name]()
    for k in range(rounds):
        for name in list(variants)[:: 1 if k % 2 == 0 else -1]:
            costs[name].append(variants[name]())
    return costs
