"""What training costs beside the bare thing, in one run: memory, the caches, the reading of clips.

    OMP_NUM_THREADS=1 python -m benchmarks.train_speed [--rounds 9] [--batch 4] [--only memory ...] [--out FILE]

The time of a step against a plain loop is in `benchmarks.speed --only train`. Everything is of the nano model on the
CPU; ratios are medians over rounds with the interval that holds them with 95 % (bootstrap), in processor time.

memory   peak memory of a process that trains a few steps, against one that does the same in a plain loop
cache    a step on cached latents, against one that renders its clips and encodes them
loader   clips of videos as training reads them (a process of its own for decoding, scaling, cropping), against a plain
         loop of PyAV that decodes the same frames and scales them
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import av
import numpy as np
import torch
from PIL import Image, ImageOps

from benchmarks.side_by_side import Cost, Ratio, cost, now, take_turns

PHOTO = Path(__file__).parents[1] / "examples" / "photo.jpg"
STEPS = 4


def recipe(folder: Path, batch: int, *, steps: int = STEPS, cached: bool = True) -> Any:
    from unleak.train.config import parse_recipe

    data: dict[str, Any] = {"kind": "synthetic", "photos": str(PHOTO.parent), "length": 32}
    data |= {"cache": str(folder / "cache")} if cached else {}
    return parse_recipe(
        {
            "model": "nano",
            "output": str(folder / ("cached" if cached else "plain")),
            "data": data,
            "condition": {"noise": "none"},
            "lr": 1e-6,
            "steps": steps,
            "batch_size": batch,
            "log_every": 10**6,
            "checkpoint_every": 10**6,
        }
    )


def ours(folder: Path, batch: int) -> None:
    from unleak.train.loop import train

    train(recipe(folder, batch), quiet=True)


def bare(folder: Path, batch: int) -> None:
    from benchmarks.speed import BareLoop

    loop = BareLoop(folder / "cache", batch)
    for _ in range(STEPS):
        loop.step()


def memory(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as name:
        ours(Path(name), arguments.batch)  # fills the cache
        peaks = {}
        for side in ("ours", "bare"):
            subprocess.run(["rm", "-rf", f"{name}/cached"], check=True)
            command = [
                sys.executable,
                "-m",
                "benchmarks.train_speed",
                "--child",
                side,
                name,
                "--batch",
                str(arguments.batch),
            ]
            peaks[side] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
    yield {
        "what": f"peak memory of {STEPS} steps, batch of {arguments.batch}",
        "against": "plain loop",
        "ratio": f"{peaks['ours'] / peaks['bare']:.3f}",
        "bytes": {side: peak * 1024 for side, peak in peaks.items()},
    }


def cache(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    costs = {}
    with tempfile.TemporaryDirectory() as name:
        for kind in ("cached", "plain"):
            costs[kind] = steps_of(
                recipe(Path(name), arguments.batch, steps=arguments.rounds + 2, cached=kind == "cached")
            )
    yield row(
        f"training step, batch of {arguments.batch}, on cached latents",
        "without the cache",
        costs["cached"],
        costs["plain"],
    )


def steps_of(run: Any) -> list[Cost]:
    """What each step of a run costs, without the first two, which allocate."""
    from unleak.train import loop
    from unleak.train.log import Log

    seen: list[Cost] = []

    class Timed(Log):
        def __enter__(self) -> "Timed":
            super().__enter__()
            self.began = now()
            return self

        def advance(self, step: int) -> None:
            super().advance(step)
            seen.append(now() - self.began)
            self.began = now()

    with patch.object(loop, "Log", Timed):
        loop.train(run, quiet=True)
    return seen[2:]


def loader(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from benchmarks.stats_throughput import make_videos
    from unleak.train.config import parse_recipe
    from unleak.train.data import open_dataset

    with tempfile.TemporaryDirectory() as name:
        videos = make_videos(Path(name, "videos"), number=4, width=640, height=360, seconds=4)
        values = {"kind": "folder", "path": f"{name}/videos", "size": [320, 512], "num_frames": 16, "fps": 5.0}
        run = {"model": "nano", "output": name, "steps": 1, "condition": {"noise": "none"}, "data": values}
        dataset = open_dataset(parse_recipe(run).data)
        starts = [dataset._drawn(k)[0].place * (4 - 16 / 5) for k in range(len(dataset))]

        def reads() -> None:
            for k in range(len(dataset)):
                dataset[k]

        def decodes() -> None:
            for video, start in zip(videos, starts, strict=True):
                bare_clip(video, start)

        def with_children(work: Callable[[], None]) -> Callable[[], Cost]:
            """The decoding process counts, too: it is asked for its clock."""

            def run() -> Cost:
                before = child_seconds(dataset)
                spent = cost(work)
                return Cost(spent.wall, spent.cpu + child_seconds(dataset) - before)

            return run

        costs = take_turns({"ours": with_children(reads), "bare": with_children(decodes)}, rounds=arguments.rounds)
    told = row("reading a clip, 16 frames of 640x360 to 512x320", "plain PyAV", costs["ours"], costs["bare"])
    rate = {side: len(videos) / float(np.median([c.wall for c in each])) for side, each in costs.items()}
    yield told | {"clips a second": rate}


def child_seconds(dataset: Any) -> float:
    process = dataset.reader.process if dataset.reader is not None else None
    if process is None:
        return 0.0
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def bare_clip(path: Path, start: float) -> torch.Tensor:
    wanted, frames = [start + k / 5 for k in range(16)], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            while len(frames) < 16 and frame.time >= wanted[len(frames)] - 0.02:
                picture = ImageOps.fit(frame.to_image(), (512, 320), Image.Resampling.LANCZOS)
                frames.append(np.asarray(picture))
            if len(frames) == 16:
                break
    return torch.from_numpy(np.stack(frames))


def row(what: str, against: str, one: list[Cost], other: list[Cost]) -> dict[str, Any]:
    ratio = Ratio.of([c.cpu for c in one], [c.cpu for c in other])
    return {"what": what, "against": against, "ratio": str(ratio), "seconds": float(np.median([c.cpu for c in one]))}


SECTIONS: dict[str, Callable[[argparse.Namespace], Iterator[dict[str, Any]]]] = {
    "memory": memory,
    "cache": cache,
    "loader": loader,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", nargs=2, metavar=("SIDE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        side, folder = arguments.child
        {"ours": ours, "bare": bare}[side](Path(folder), arguments.batch)
        # Not `ru_maxrss`, which begins with that of the process that started this one.
        status = Path("/proc/self/status").read_text()
        print(re.search(r"VmHWM:\s+(\d+) kB", status)[1])
        return
    rows = [told for name in arguments.only for told in SECTIONS[name](arguments)]
    for told in rows:
        print(f"{told['what']}, against {told['against']}: {told['ratio']}", told.get("clips a second", ""))
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
