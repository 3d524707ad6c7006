"""What `unleak stats` costs beside the bare VAE encode, and whether its memory is flat: the numbers in the README.

    python benchmarks/stats_throughput.py [--model nano] [--source 320x180] [--workers 1] [--clips 48] [--long 10000]

Throughput: the same clips, encoded from memory by the VAE alone, and gathered by `estimate` from files that worker
processes decode meanwhile; in turns, in one process, so that a busy machine slows both. `warm` leaves out the first
clips, in which the workers start. `CPU` compares the processor time of this process alone: what the ratio is once the
workers have cores of their own and keep up, and what can be measured on a machine that is busy with something else.
`decode` is the time one clip takes in this process.

Memory: resident size of this process after 10, 100 ... clips of one long run over small videos.
"""

import argparse
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import torch

import unleak
from unleak.data.decode_worker import ClipRequest, Decoding, read_clips
from unleak.data.pixels import to_unit
from unleak.data.video import write_video
from unleak.families.svd.denoiser import SVDDenoiser
from unleak.stats.estimate import estimate
from unleak.zoo.registry import find_model
from unleak.zoo.sample import Settings


def make_videos(folder: Path, *, number: int, width: int, height: int, seconds: float, fps: int = 25) -> list[Path]:
    """H.264 of a sliding smooth texture: neither the cheapest nor the dearest to decode."""
    draws = np.random.default_rng(0)
    for k in range(number):
        coarse = draws.integers(0, 256, (height // 8 + 2, width // 8 + 40, 3), dtype=np.uint8)
        canvas = np.kron(coarse, np.ones((8, 8, 1), np.uint8))
        frames = [canvas[:height, 2 * t : 2 * t + width] for t in range(int(seconds * fps))]
        write_video(np.stack(frames), folder / f"{k}.mp4", fps=fps)
    return sorted(folder.iterdir())


def named(videos: list[Path], folder: Path, number: int) -> list[Path]:
    """`number` names for the same few videos."""
    folder.mkdir()
    for k in range(number):
        (folder / f"{k:06}.mp4").symlink_to(videos[k % len(videos)])
    return sorted(folder.iterdir())


def throughput(pipe, clip: dict, paths: list[Path], *, workers: int, rounds: int) -> None:
    size = (clip["height"], clip["width"])
    requests = [ClipRequest(path, clip["num_frames"], clip["fps"], size, 0.5) for path in paths]
    began = time.perf_counter()
    frames = [read.frames for read in read_clips(requests[:12], decoding=Decoding(0))]
    decode = (time.perf_counter() - began) / len(frames)
    print("| round | bare encode, clips/s | stats, clips/s | ratio | warm | CPU |\n|---|---|---|---|---|---|")
    ratios, skip = [], 4 + 2 * workers
    for round_ in range(rounds):
        clocks = [(time.perf_counter(), time.process_time())]
        for k in range(len(paths)):
            SVDDenoiser(pipe).encode_video(to_unit(torch.from_numpy(frames[k % len(frames)][None]))).sum().item()
        clocks.append((time.perf_counter(), time.process_time()))
        ends = []
        estimate(
            pipe, paths, **clip, decoding=Decoding(workers), on_video=lambda _, t=ends: t.append(time.perf_counter())
        )
        clocks.append((time.perf_counter(), time.process_time()))
        (bare, bare_cpu), (whole, whole_cpu) = (
            ((b[0] - a[0]) / len(paths), (b[1] - a[1]) / len(paths)) for a, b in pairwise(clocks)
        )
        warm = (ends[-1] - ends[skip]) / (len(ends) - 1 - skip)
        ratios.append((bare / whole, bare / warm, bare_cpu / whole_cpu))
        numbers = " | ".join(f"{ratio:.2f}" for ratio in ratios[-1])
        print(f"| {round_} | {1 / bare:.1f} | {1 / whole:.1f} | {numbers} |", flush=True)
    whole, warm, cpu = (median(column) for column in zip(*ratios, strict=True))
    print(f"\nmedian ratio {whole:.2f}, warm {warm:.2f}, CPU {cpu:.2f}")
    print(f"a clip: encode {bare * 1e3:.0f} ms ({bare_cpu * 1e3:.0f} ms CPU), decode {decode * 1e3:.0f} ms")


def memory(pipe, clip: dict, paths: list[Path], *, workers: int) -> None:
    process, done, marks, peak = psutil.Process(), 0, {}, 0

    def on_video(_: str | None) -> None:
        nonlocal done, peak
        done += 1
        peak = max(peak, process.memory_info().rss)
        if done in (10, 100, 1_000, 10_000, len(paths)):
            marks[done] = peak
            print(f"| {done} | {peak / 2**20:.1f} |", flush=True)

    print("\n| clips | largest resident size so far, MiB |\n|---|---|")
    estimate(pipe, paths, **clip, decoding=Decoding(workers), on_video=on_video)
    first, *_, last = marks.values()
    print(f"\ngrowth {(last - first) / 2**20:.1f} MiB from 10 clips to {done}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--size", help="WxH of a clip; by default the model's")
    parser.add_argument("--source", default="320x180", help="WxH of the videos")
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--long", type=int, default=10_000, help="clips of the run that memory is watched in")
    arguments = parser.parse_args()
    width, height = map(int, arguments.source.split("x"))
    columns, rows = map(int, arguments.size.split("x")) if arguments.size else (None, None)
    usual = Settings.for_model(find_model(arguments.model), width=columns, height=rows)
    clip = {"num_frames": usual.num_frames, "height": usual.height, "width": usual.width, "fps": usual.fps}
    pipe = unleak.load(arguments.model, only=("vae",), device="cpu")
    print(f"{arguments.model}: clips {clip}, videos {arguments.source}, {arguments.workers} workers\n")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("few", "small"):
            (folder / name).mkdir()
        few = make_videos(folder / "few", number=4, width=width, height=height, seconds=4)
        paths = named(few, folder / "many", arguments.clips)
        throughput(pipe, clip, paths, workers=arguments.workers, rounds=arguments.rounds)
        if arguments.long:
            small = make_videos(folder / "small", number=4, width=64, height=48, seconds=2.5)
            memory(pipe, clip, named(small, folder / "long", arguments.long), workers=arguments.workers)


if __name__ == "__main__":
    main()
