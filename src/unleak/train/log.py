"""Report a run: one line per `log_every` steps, on stderr, in `log.jsonl`, and to TensorBoard if asked."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from unleak.data.atomic import written_whole
from unleak.data.reading import Record, lines_of, parse_json
from unleak.train.config import Recipe

BUCKETS = 5  # of equal probability under the training distribution of sigma: a single number hides where a model fails


class DivergedError(ValueError):
    """A run whose numbers are no longer finite. Its last checkpoint is still good."""

    def __str__(self) -> str:
        what = super().__str__()
        return f"{what}; the last checkpoint is still good: lower lr or clip in a new output and start again"


class Log:
    """Sums losses between two lines, per bucket of sigma (from clean to noisy), over all processes."""

    def __init__(self, recipe: Recipe, accelerator: Accelerator, console: Console, step: int):
        self.recipe, self.accelerator, self.console = recipe, accelerator, console
        self.path = recipe.output / "log.jsonl"
        if accelerator.is_main_process:
            for path in (self.path, recipe.output / "validation.jsonl"):
                forget_after(path, step)
        if recipe.report_to != "none":
            # A folder for TensorBoard, a project for Weights & Biases.
            name = "unleak" if recipe.report_to == "wandb" else "log"
            config = recipe.model_dump(mode="json") if recipe.report_to == "wandb" else None
            # Beside the rest of the run, and one run there however often it was killed.
            of_wandb = {"dir": str(recipe.output), "name": recipe.output.name, "resume": "auto"}
            accelerator.init_trackers(name, config=config, init_kwargs={"wandb": of_wandb})
        self.bar = _bar(console)
        self.task = self.bar.add_task("step", total=recipe.steps, completed=step)
        self._restart(step)

    def __enter__(self) -> "Log":
        if self.step:
            self.console.print(f"resuming after step {self.step}")
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def _restart(self, step: int) -> None:
        self.step, self.since = step, time.monotonic()
        self.sums = torch.zeros(3, BUCKETS, device=self.accelerator.device)
        self.batches: list[tuple[int, list[str], Tensor]] = []

    def add(
        self,
        level: Float[Tensor, "b"],
        loss: Float[Tensor, "b"],
        misread: Float[Tensor, "b"] | None = None,
        *,
        clips: list[str],
        step: int,
    ) -> None:
        """Take in one batch: how noisy its clips were as quantiles, their losses, their names; `misread` is the squared
        error of the motion read-out."""
        bucket = (level * BUCKETS).long().clamp(max=BUCKETS - 1)
        self.sums[0].index_add_(0, bucket, loss.detach())
        self.sums[1].index_add_(0, bucket, torch.ones_like(level))
        if misread is not None:
            self.sums[2].index_add_(0, bucket, misread.detach())
        # Looked at when the next line is due: to ask the device at every step would make it wait.
        self.batches.append((step, clips, loss.detach()))

    def check(self, step: int) -> None:
        """Raise DivergedError if a loss since the last line was not finite in any process."""
        if not self.accelerator.reduce(self.sums, reduction="sum").isfinite().all():
            raise DivergedError(self._where(step))

    def _where(self, step: int) -> str:
        for at, clips, loss in self.batches:
            if not loss.isfinite().all():
                finite = loss.isfinite().tolist()
                bad = [clip for clip, good in zip(clips, finite, strict=True) if not good]
                return f"step {at}: the loss is not finite, of {', '.join(bad)}"
        return f"step {step}: the loss is not finite in another process, which names the clips"

    def advance(self, step: int) -> None:
        """Move the bar of a terminal."""
        self.bar.update(self.task, completed=step)

    def write(self, step: int, *, lr: float, gradient_norm: Tensor) -> None:
        """Report the steps since the last line. Raises DivergedError if a loss was not finite."""
        sums = self.accelerator.reduce(self.sums, reduction="sum")
        if not sums.isfinite().all():
            raise DivergedError(self._where(step))
        total, count, misread = sums.tolist()
        seconds = (time.monotonic() - self.since) / max(1, step - self.step)
        line: dict[str, Any] = {
            "step": step,
            "loss": sum(total) / sum(count),
            "loss_by_sigma": [t / c if c else None for t, c in zip(total, count, strict=True)],
            "gradient_norm": float(gradient_norm),
            "lr": lr,
            "seconds_per_step": seconds,
        }
        if self.recipe.motion_readout:
            line["misread_by_sigma"] = [t / c if c else None for t, c in zip(misread, count, strict=True)]
        if self.accelerator.is_main_process:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        self.console.print(self._sentence(line))
        scalars = {k: v for k, v in line.items() if isinstance(v, float)}
        buckets = {f"loss_by_sigma/{i}": v for i, v in enumerate(line["loss_by_sigma"]) if v is not None}
        self.accelerator.log(scalars | buckets, step=step)
        self._restart(step)

    def _sentence(self, line: dict[str, Any]) -> str:
        buckets = " ".join("-" if v is None else f"{v:.3f}" for v in line["loss_by_sigma"])
        left = _duration((self.recipe.steps - line["step"]) * line["seconds_per_step"])
        if "misread_by_sigma" in line:
            buckets += "  misread " + " ".join("-" if v is None else f"{v:.2f}" for v in line["misread_by_sigma"])
        return (
            f"step {line['step']}/{self.recipe.steps}  loss {line['loss']:.4f}  by sigma {buckets}  "
            f"|grad| {line['gradient_norm']:.2f}  lr {line['lr']:.2e}  {line['seconds_per_step']:.2f} s/step  "
            f"{left} left"
        )


class Counter:
    """Counts long work: a bar on a terminal, else a line for every tenth of it. Called with (done, total)."""

    def __init__(self, label: str, console: Console):
        self.label, self.console = label, console
        self.bar = _bar(console)
        self.task = self.bar.add_task(label, total=None)
        self.tenth, self.since = -1, time.monotonic()

    def __enter__(self) -> "Counter":
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Report that `done` of `total` are done."""
        self.bar.update(self.task, completed=done, total=total)
        if not self.console.is_terminal and 10 * done // total > self.tenth:
            self.tenth = 10 * done // total
            left = (time.monotonic() - self.since) / max(1, done) * (total - done)
            about = f", about {_duration(left)} left" if done < total else ""
            self.console.print(f"{self.label}: {done} of {total} clips{about}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=console.quiet or not console.is_terminal)


class _Line(Record):
    """What every line of a log says."""

    step: int


def forget_after(path: Path, step: int) -> None:
    """Drop the lines of steps that a killed run made after its last checkpoint, and a last line that it cut short.

    Raises ValueError for a file that is not the log of a run.
    """
    if not path.exists():
        return
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8") as kept:
        try:
            for number, line in enumerate(lines_of(path), start=1):
                if line.endswith("\n") and parse_json(line, _Line, f"{path}, line {number}").step <= step:
                    kept.write(line)
        except ValueError as error:
            raise ValueError(f"{error}; not the log of a run: move it away or choose another output") from error
