"""What an attachment costs per step: plain, started, and with a strategy, side by side in one run.

    python benchmarks/attach_overhead.py [--steps 20] [--rounds 15]

One UNet (Stable Video Diffusion) and one transformer (Wan) with random weights, as small as its classes allow, so that
the fixed cost of an attachment is large beside the network and its measure an upper bound in relative terms: what
counts is the milliseconds. The variants take turns in every round, in both orders; the table gives the median over
rounds of the processor time per step of one thread less that of the plain pipeline in the same round (so what else the
machine does counts little), and the interval that holds the median with 95% confidence (bootstrap).
"""

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import unleak
from tests.attach.watch import all_tiny
from unleak.attach.plan import UnleakWarning

VARIANTS: dict[str, dict[str, dict[str, Any] | None]] = {
    "svd": {
        "plain": None,
        "start": {"start": "sigma=100"},
        "start, unit": {"start": "sigma=100", "init": "unit"},
        "guidance interval": {"strategies": [unleak.GuidanceInterval(low="sigma=0.01")]},
        "condition noise": {"strategies": [unleak.ConditionNoise(0.1)]},
        "low-pass, a tenth of the steps": {"strategies": [unleak.LowPass(0.4, 0.1)]},
        "compress": {"strategies": [unleak.Compress()]},
    },
    "wan21": {
        "plain": None,
        "start": {"start": "sigma=0.9"},
        "start, unit": {"start": "sigma=0.9", "init": "unit"},
        "guidance interval": {"strategies": [unleak.GuidanceInterval(low="sigma=0.01")]},
        "condition noise": {"strategies": [unleak.ConditionNoise(0.1)]},
        "low-pass, a tenth of the steps": {"strategies": [unleak.LowPass(0.4, 0.1)]},
        "compress": {"strategies": [unleak.Compress()]},
        "motion amplitude": {"strategies": [unleak.MotionAmplitude()]},
        "reference bias, a fifth of the steps": {"strategies": [unleak.ReferenceBias()]},
        "reference bias, all steps": {"strategies": [unleak.ReferenceBias(until=1.0)]},
    },
}


def seconds_per_step(tiny: Any, pipe: Any, steps: int) -> float:
    began = time.process_time()
    tiny.call(pipe, num_inference_steps=steps)
    return (time.process_time() - began) / steps


def interval(values: np.ndarray) -> tuple[float, float, float]:
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (4000, len(values))), axis=1)
    return float(np.median(values)), *np.quantile(medians, [0.025, 0.975]).tolist()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UnleakWarning)
    torch.set_num_threads(1)
    named = {tiny.name: tiny for tiny in all_tiny()}
    print(f"{arguments.rounds} rounds of {arguments.steps} steps, one thread\n")
    print("| pipeline | attached | ms/step | more than plain, ms/step (95% interval) |")
    print("|---|---|---|---|")
    for name, variants in VARIANTS.items():
        pipes = {label: named[name].build() for label in variants}
        for label, settings in variants.items():
            if settings is not None:
                unleak.apply(pipes[label], **settings)
            named[name].call(pipes[label], num_inference_steps=arguments.steps)  # the first call is slower
        times = {label: np.zeros(arguments.rounds) for label in variants}
        for i in range(arguments.rounds):
            for label in (list(variants), list(variants)[::-1])[i % 2]:
                times[label][i] = 1000 * seconds_per_step(named[name], pipes[label], arguments.steps)
        for label in variants:
            more, low, high = interval(times[label] - times["plain"])
            extra = "" if label == "plain" else f"{more:+.2f} ({low:+.2f} to {high:+.2f})"
            print(f"| {type(pipes[label]).__name__} | {label} | {np.median(times[label]):.2f} | {extra} |")


if __name__ == "__main__":
    main()
