"""What a run says: one line per `log_every` steps, on the console, in `log.jsonl`, and to TensorBoard if asked."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float
from rich.console import Console
from torch import Tensor

from unleak.train.config import Recipe
from unleak.train.draws import sigma_distribution

BUCKETS = 5  # of equal probability under the training distribution of sigma: a single number hides where a model fails


class Log:
    """Sums losses between two lines, per bucket of sigma (from clean to noisy), over all processes."""

    def __init__(self, recipe: Recipe, accelerator: Accelerator, step: int):
        self.recipe, self.accelerator, self.distribution = recipe, accelerator, sigma_distribution(recipe.sigma)
        self.path = recipe.output / "log.jsonl"
        self.console = Console(highlight=False, soft_wrap=True)
        if accelerator.is_main_process:
            recipe.output.mkdir(parents=True, exist_ok=True)
            _forget_after(self.path, step)
        if recipe.report_to != "none":
            accelerator.init_trackers("tensorboard")
        self._restart(step)

    def _restart(self, step: int) -> None:
        self.step, self.since = step, time.monotonic()
        self.sums = torch.zeros(2, BUCKETS, device=self.accelerator.device)

    def add(self, sigma: Float[Tensor, "b"], loss: Float[Tensor, "b"]) -> None:
        """Take in one batch."""
        bucket = (self.distribution.cdf(sigma) * BUCKETS).long().clamp(max=BUCKETS - 1)
        self.sums[0].index_add_(0, bucket, loss.detach())
        self.sums[1].index_add_(0, bucket, torch.ones_like(sigma))

    def check(self, step: int) -> Float[Tensor, "2 buckets"]:
        """Sums and counts over all processes. Raises FloatingPointError if a loss was not finite."""
        sums = self.accelerator.reduce(self.sums, reduction="sum")
        if not sums.isfinite().all():
            raise FloatingPointError(
                f"the loss is not finite at or before step {step}: nothing was saved since the last checkpoint; "
                "lower lr or clip, or use mixed_precision: no"
            )
        return sums

    def write(self, step: int, *, lr: float, gradient_norm: Tensor) -> None:
        """Report the steps since the last line."""
        total, count = self.check(step).tolist()
        seconds = (time.monotonic() - self.since) / max(1, step - self.step)
        line: dict[str, Any] = {
            "step": step,
            "loss": sum(total) / sum(count),
            "loss_by_sigma": [t / c if c else None for t, c in zip(total, count, strict=True)],
            "gradient_norm": float(gradient_norm),
            "lr": lr,
            "seconds_per_step": seconds,
        }
        if self.accelerator.is_main_process:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            self.console.print(self._sentence(line))
        scalars = {k: v for k, v in line.items() if isinstance(v, float)}
        buckets = {f"loss_by_sigma/{i}": v for i, v in enumerate(line["loss_by_sigma"]) if v is not None}
        self.accelerator.log(scalars | buckets, step=step)
        self._restart(step)

    def say(self, text: str) -> None:
        """One line on the console, from the main process."""
        if self.accelerator.is_main_process:
            self.console.print(text)

    def _sentence(self, line: dict[str, Any]) -> str:
        buckets = " ".join("-" if v is None else f"{v:.3f}" for v in line["loss_by_sigma"])
        left = (self.recipe.steps - line["step"]) * line["seconds_per_step"]
        return (
            f"step {line['step']}/{self.recipe.steps}  loss {line['loss']:.4f}  by sigma {buckets}  "
            f"|grad| {line['gradient_norm']:.2f}  lr {line['lr']:.2e}  {line['seconds_per_step']:.2f} s/step  "
            f"{left / 3600:.1f} h left"
        )


def _forget_after(path: Path, step: int) -> None:
    """Drop the lines of steps that a killed run made after its last checkpoint: they will be made again."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if json.loads(line)["step"] <= step]
        path.write_text("".join(line + "\n" for line in lines))
