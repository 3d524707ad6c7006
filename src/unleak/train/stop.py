"""End a run before its last step: on Ctrl-C, a scheduler's SIGTERM, or after the hours that its recipe allows."""

import signal
import threading
import time
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator

__all__ = ["Stop"]


class Stop:
    """Watches for a request to stop while it is entered; the run then finishes its step and saves it before it ends.

    A second Ctrl-C ends the run at once, without a checkpoint. Signals can only be caught in the main thread; in
    another one only the hours count.
    """

    def __init__(self, max_hours: float | None, accelerator: Accelerator):
        self.accelerator = accelerator
        self.deadline = None if max_hours is None else time.monotonic() + max_hours * 3600
        self.signal: int | None = None
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._asked) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def wanted(self) -> bool:
        """Return whether to stop after this step; the same in all processes."""
        mine = self.signal is not None or (self.deadline is not None and time.monotonic() > self.deadline)
        if self.accelerator.num_processes == 1:
            return mine
        # Clocks differ a little between processes and signals arrive at different times: all must stop at one step.
        anyone = self.accelerator.reduce(torch.tensor(float(mine), device=self.accelerator.device))
        return bool(anyone > 0)

    def raise_if_asked(self) -> None:
        """Raise what the signal would have raised: KeyboardInterrupt, or SystemExit(143)."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is not None:
            raise SystemExit(128 + self.signal)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        del frame
        again, self.signal = self.signal == number, number
        if again:
            self.raise_if_asked()
