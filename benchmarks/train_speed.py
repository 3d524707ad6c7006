"""What training costs beside the bare thing, in one run: memory, the caches, the reading of clips.

    OMP_NUM_THREADS=1 python -m benchmarks.train_speed [--rounds 9] [--batch 4] [--only memory ...] [--out FILE]

A step of nano against a plain loop is in `benchmarks.speed --only train`. All but `step` is of nano, and all on the
CPU; ratios are medians over rounds with the interval that holds them with 95 % (bootstrap), in processor time.

step     an optimizer step of a Wan of 7 million weights, against a plain loop over the same latents and text tokens
         (loss, clipping, AdamW, average), by turns in one process; wall time too
memory   peak memory of a process that trains a few steps, against one that does the same in a plain loop; and what of
         it the steps add to the process as it was before the first (a library for videos is loaded, clips were read)
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


def ours(folder: Path, batch: int) -> int:
    """The bytes of the process before the first step."""
    from unleak.train import trainer
    from unleak.train.log import Log

    before = []

    class Looked(Log):
        def __enter__(self) -> "Looked":
            super().__enter__()
            before.append(resident("VmRSS"))
            return self

    with patch.object(trainer, "Log", Looked):
        trainer.train(recipe(folder, batch), quiet=True)
    return before[0]


def bare(folder: Path, batch: int) -> int:
    """The same."""
    from benchmarks.speed import BareLoop

    loop = BareLoop(folder / "cache", batch)
    before = resident("VmRSS")
    for _ in range(STEPS):
        loop.step()
    return before


def step(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from unleak.train import trainer
    from unleak.train.config import parse_recipe
    from unleak.train.log import Log

    costs: dict[str, list[Cost]] = {"ours": [], "bare": []}
    with tempfile.TemporaryDirectory() as name:
        weights = save_wan(Path(name, "wan"))
        run = recipe(Path(name), arguments.batch, steps=arguments.rounds + 2).model_dump(mode="json")
        data = run["data"] | {"size": 128, "num_frames": 9}
        run = parse_recipe(run | {"model": f"{name}/wan", "data": data, "condition": {"noise": "none"}})

        class TakingTurns(Log):
            def __enter__(self) -> "TakingTurns":
                self.bare = BareWan(Path(name), arguments.batch)
                super().__enter__()
                self.began = now()
                return self

            def advance(self, step: int) -> None:
                super().advance(step)
                costs["ours"].append(now() - self.began)
                costs["bare"].append(cost(self.bare.step))
                self.began = now()

        with patch.object(trainer, "Log", TakingTurns):
            trainer.train(run, quiet=True)
    ours, bare = (costs[side][2:] for side in ("ours", "bare"))  # the first steps allocate
    what = f"training step of a Wan of {weights / 1e6:.1f} million weights, batch of {arguments.batch}"
    wall = Ratio.of([c.wall for c in ours], [c.wall for c in bare])
    yield row(what, "plain loop", ours, bare) | {"ratio of wall time": str(wall)}


def save_wan(folder: Path) -> int:
    """Write it, with a VAE and a text encoder of next to nothing; how many weights are trained."""
    from diffusers import UniPCMultistepScheduler, WanImageToVideoPipeline, WanTransformer3DModel

    from tests.tiny.text import T5_DIM, umt5, words
    from tests.tiny.wan_vae import wan_vae

    torch.manual_seed(0)
    transformer = WanTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=64,
        in_channels=36,
        out_channels=16,
        text_dim=T5_DIM,
        freq_dim=64,
        ffn_dim=1024,
        num_layers=6,
        rope_max_seq_len=64,
    )
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    parts = {"tokenizer": words(max_length=512), "text_encoder": umt5(), "vae": wan_vae()}
    WanImageToVideoPipeline(transformer=transformer, scheduler=scheduler, **parts).save_pretrained(folder)
    return sum(weight.numel() for weight in transformer.parameters())


class BareWan:
    """Fine-tuning as one would write it in an afternoon, on the same latents and tokens."""

    def __init__(self, folder: Path, batch: int):
        from diffusers import WanTransformer3DModel
        from safetensors.torch import load_file

        (cache,) = (path for path in (folder / "cache").iterdir() if (path / "latents.npy").exists())
        self.latents, self.stills = (
            torch.from_numpy(np.load(cache / f"{name}.npy").astype(np.float32)) for name in ("latents", "still")
        )
        (texts,) = (folder / "cache").glob("texts-*/*.safetensors")
        self.text, self.batch = load_file(texts)["tokens"][:1].float(), batch
        self.network = WanTransformer3DModel.from_pretrained(folder / "wan", subfolder="transformer").train()
        self.weights = list(self.network.parameters())
        self.optimizer = torch.optim.AdamW(self.weights, lr=1e-6, weight_decay=0.01, fused=True)
        self.average = [weight.detach().clone() for weight in self.weights]

    def step(self) -> None:
        chosen = torch.randint(len(self.latents), (self.batch,))
        x_0, eps = self.latents[chosen], torch.randn(self.batch, *self.latents.shape[1:])
        q = torch.randn(self.batch).sigmoid()
        sigma = 3 * q / (1 + 2 * q)
        level = sigma.view(-1, 1, 1, 1, 1)
        known = torch.zeros(self.batch, 4, *x_0.shape[2:])
        known[:, :, 0] = 1
        sample = torch.cat([(1 - level) * x_0 + level * eps, known, self.stills[chosen]], dim=1)
        output = self.network(sample, 1000 * sigma, self.text.expand(self.batch, -1, -1)).sample
        (output - (eps - x_0)).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.weights, 1e-4)


def resident(which: str) -> int:
    """Bytes of this process: `VmRSS` now, `VmHWM` at most. Not `ru_maxrss`, which begins with that of its parent."""
    return 1024 * int(re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def memory(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as name:
        ours(Path(name), arguments.batch)  # fills the cache
        peaks = {}
        # Large blocks are given back when they are freed: what is held is measured, not how the heap frays.
        env = os.environ | {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "32768"}
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
            said = subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout.split()
            peaks[side] = dict(zip(("before", "peak"), map(int, said[-2:]), strict=True))
    added = {side: told["peak"] - told["before"] for side, told in peaks.items()}
    yield {
        "what": f"peak memory of {STEPS} steps, batch of {arguments.batch}",
        "against": "plain loop",
        "ratio": f"{peaks['ours']['peak'] / peaks['bare']['peak']:.3f}",
        "of what the steps add": f"{added['ours'] / added['bare']:.3f}",
        "bytes": peaks,
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
    from unleak.train import trainer
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

    with patch.object(trainer, "Log", Timed):
        trainer.train(run, quiet=True)
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
    "step": step,
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
        before = {"ours": ours, "bare": bare}[side](Path(folder), arguments.batch)
        print(before, resident("VmHWM"))
        return
    rows = [told for name in arguments.only for told in SECTIONS[name](arguments)]
    for told in rows:
        more = {name: value for name, value in told.items() if name not in ("what", "against", "ratio")}
        print(f"{told['what']}, against {told['against']}: {told['ratio']}", more)
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
