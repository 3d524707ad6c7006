"""What `unleak stats` costs beside the bare VAE encode, and whether its memory is flat: the numbers in the README.

    OMP_NUM_THREADS=1 python -m benchmarks.stats_throughput [--model nano] [--source 320x180] [--workers 1] [--clips 24]
        [--rounds 7] [--long 10000] [--out benchmarks/results/stats]

Throughput: the same clips encoded from memory by `pipe.vae.encode` alone, and gathered by `estimate` from files that
worker processes decode meanwhile. The two take turns in one process, in both orders, so that a busy machine slows both;
the ratio is the median over rounds, with the interval that holds it with 95 % (bootstrap). `wall` holds where the
workers have cores of their own; `processor` compares the processor time of this process alone, which is what remains of
the ratio then, and what can be measured on a machine that is busy with something else. `decode` is one clip's time.

Memory: resident size of this process after 10, 100, 1,000 and 10,000 clips of one long run. So that it ends, its clips
are of 4 frames of 32x32 pixels, through an autoencoder of 8 channels with random weights.
"""

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import torch

import unleak
from benchmarks.side_by_side import Cost, Ratio, cost, take_turns
from unleak.animate.settings import Settings
from unleak.data.decode_worker import ClipRequest, Decoding, read_clips
from unleak.data.video import write_video
from unleak.stats.estimate import estimate
from unleak.zoo.registry import find_model

MARKS = (10, 100, 1_000, 10_000)


def make_videos(folder: Path, *, number: int, width: int, height: int, seconds: float, fps: int = 25) -> list[Path]:
    """H.264 of a sliding smooth texture: neither the cheapest nor the dearest to decode."""
    folder.mkdir()
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


def clips_of(paths: list[Path], clip: dict[str, Any]) -> list[torch.Tensor]:
    """The clips of a few videos, decoded here: float [f 3 h w] in [-1, 1]."""
    size = (clip["height"], clip["width"])
    requests = [ClipRequest(path, clip["num_frames"], clip["fps"], size, 0.5) for path in paths]
    read = read_clips(requests, decoding=Decoding(0))
    return [torch.from_numpy(video.frames).permute(0, 3, 1, 2).float() / 127.5 - 1 for video in read]


def side_by_side(
    pipe: Any, clip: dict[str, Any], paths: list[Path], *, workers: int, rounds: int
) -> dict[str, list[Cost]]:
    """Costs of all of `paths`: encoded only, and gathered."""
    videos = clips_of(paths[:8], clip)

    @torch.inference_mode()
    def bare() -> None:
        for k in range(len(paths)):
            latents = pipe.vae.encode(videos[k % len(videos)]).latent_dist.mode() * pipe.vae.config.scaling_factor
            latents.sum().item()

    def whole() -> None:
        estimate(pipe, paths, **clip, decoding=Decoding(workers))

    return take_turns({"bare": lambda: cost(bare), "stats": lambda: cost(whole)}, rounds=rounds)


def throughput(pipe: Any, clip: dict[str, Any], paths: list[Path], *, workers: int, rounds: int) -> dict[str, Any]:
    """Costs of a clip, and the ratio of the bare encode to the whole."""
    decode = cost(lambda: clips_of(paths[:8], clip))
    costs = side_by_side(pipe, clip, paths, workers=workers, rounds=rounds)
    ratios = {
        clock: asdict(Ratio.of(*([getattr(c, attribute) for c in costs[name]] for name in ("bare", "stats"))))
        for clock, attribute in (("wall", "wall"), ("processor", "cpu"))
    }
    each = {name: asdict(_median(costs[name], len(paths))) for name in costs}
    return {"ratio": ratios, "seconds_a_clip": each | {"decode": asdict(_median([decode], 8))}}


def _median(costs: list[Cost], clips: int) -> Cost:
    return Cost(*(float(np.median([getattr(c, name) for c in costs])) / clips for name in ("wall", "cpu")))


def memory(pipe: Any, clip: dict[str, Any], paths: list[Path], *, workers: int) -> dict[int, float]:
    """Clips done -> largest resident size so far, MiB."""
    process, done, peak = psutil.Process(), 0, 0
    marks: dict[int, float] = {}

    def on_video(_: str | None) -> None:
        nonlocal done, peak
        done += 1
        peak = max(peak, process.memory_info().rss)
        if done in (*MARKS, len(paths)):
            marks[done] = peak / 2**20
            print(f"| {done} | {marks[done]:.1f} |", flush=True)

    print("\n| clips | largest resident size so far, MiB |\n|---|---|")
    estimate(pipe, paths, **clip, decoding=Decoding(workers), on_video=on_video)
    return marks


def tiny_pipe(pipe: Any) -> Any:
    """What `estimate` uses of a pipeline, with an autoencoder that costs next to nothing."""
    from diffusers import AutoencoderKL

    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae = AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, **blocks)
    return SimpleNamespace(vae=vae.eval(), unet=None, scheduler=pipe.scheduler)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--size", help="WxH of a clip; by default the model's")
    parser.add_argument("--source", default="320x180", help="WxH of the videos")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--long", type=int, default=10_000, help="clips of the run that memory is watched in")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/stats"))
    arguments = parser.parse_args()
    width, height = map(int, arguments.source.split("x"))
    columns, rows = map(int, arguments.size.split("x")) if arguments.size else (None, None)
    usual = Settings.for_model(find_model(arguments.model), width=columns, height=rows)
    clip = {"num_frames": usual.num_frames, "height": usual.height, "width": usual.width, "fps": usual.fps}
    pipe = unleak.load(arguments.model, only=("vae",), device="cpu")
    results: dict[str, Any] = {"model": arguments.model, "clip": clip, "videos": arguments.source}
    results |= {"workers": arguments.workers, "threads": torch.get_num_threads(), "cores": psutil.cpu_count()}
    print(json.dumps(results))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if arguments.rounds:
            few = make_videos(folder / "few", number=4, width=width, height=height, seconds=4)
            paths = named(few, folder / "many", arguments.clips)
            results["throughput"] = throughput(pipe, clip, paths, workers=arguments.workers, rounds=arguments.rounds)
            print(json.dumps(results["throughput"], indent=1), flush=True)
        if arguments.long:
            small = make_videos(folder / "small", number=4, width=32, height=32, seconds=0.4)
            short = {"num_frames": 4, "height": 32, "width": 32, "fps": 12.5}
            paths = named(small, folder / "long", arguments.long)
            results["resident_mib"] = memory(tiny_pipe(pipe), short, paths, workers=arguments.workers)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in ("throughput", "resident_mib"):
        if name in results:
            about = {key: value for key, value in results.items() if key not in ("throughput", "resident_mib")}
            (arguments.out / f"{name}.json").write_text(json.dumps(about | {name: results[name]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
