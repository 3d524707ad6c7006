"""What unleak costs and what it saves, each beside the bare thing in one run: the table in docs/evidence.md.

    OMP_NUM_THREADS=1 python -m benchmarks.speed PHOTOS [--only NAME ...] [--out benchmarks/results/speed]

PHOTOS is the test split that recipes/nano/photos.py writes. Everything is of the nano model on the CPU. In every round
each side has its turn, in both orders; ratios are medians over rounds with the interval that holds them with 95 %
(bootstrap). Processor time is what the process (or the command) used, all threads: on a machine that does something
else too it is the fair clock; wall time stands beside it.

step        a denoising step with an attachment, against the plain pipeline
matched     sampling with `truncate` at the recommended start, against the plain pipeline: the cheapest of several
            numbers of steps of which as many videos move as of plain's, and no more are broken
generate    `unleak generate photo.jpg` from a cold start to the mp4, against a bare script on diffusers that loads the
            same model and samples as many steps
help        `unleak --help`, against a Python that imports typer
refusal     `unleak generate` with a wrong size, which is answered before torch is imported, against a Python that
            imports typer, numpy and Pillow
import      `import unleak`, against a Python that does nothing
train       an optimizer step of `unleak train`, against a bare loop over the same clips (batch, CLIP, loss, clipping,
            AdamW, EMA)
stats       benchmarks/stats_throughput.py: processor time of a clip's share in `unleak stats`, against the bare encode
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import yaml

import unleak
from benchmarks.side_by_side import Cost, Ratio, child_cost, cost, now, take_turns
from unleak.data.image import fit_image, load_image
from unleak.zoo.registry import find_model

HERE = Path(__file__).parent
PHOTO = HERE.parent / "examples" / "photo.jpg"
NANO = find_model("nano")
SIZE = {name: NANO.defaults[name] for name in ("height", "width", "num_frames")}
TRUNCATED = (25, 20, 16, 12, 10, 8)  # steps of the whole schedule, before those above the start are dropped

BARE_GENERATE = """
import sys
import av, numpy as np, torch
from diffusers import StableVideoDiffusionPipeline
from PIL import Image
model, photo, out = sys.argv[1:]
pipe = StableVideoDiffusionPipeline.from_pretrained(model, torch_dtype=torch.float32)
pipe.set_progress_bar_config(disable=True)
side, frames = pipe.unet.config.sample_size * pipe.vae_scale_factor, pipe.unet.config.num_frames
image = Image.open(photo).convert("RGB").resize((side, side))
frames = pipe(image, height=side, width=side, num_frames=frames, num_inference_steps=25, noise_aug_strength=0.0,
              generator=torch.Generator().manual_seed(0), output_type="np").frames[0]
with av.open(out, "w") as container:
    stream = container.add_stream("libx264", rate=7)
    stream.width = stream.height = side
    stream.pix_fmt = "yuv420p"
    for frame in (frames * 255).round().astype(np.uint8):
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
    container.mux(stream.encode())
"""


@dataclass(frozen=True)
class Row:
    """One line of the table: `what` in relation to `against`, and whatever else was seen."""

    what: str
    against: str
    processor: Ratio
    wall: Ratio
    seconds: Cost
    """Median cost of `what`."""
    rounds: int
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, what: str, against: str, costs: Sequence[Cost], bare: Sequence[Cost], **about: Any) -> "Row":
        ratios = (Ratio.of(*([getattr(c, clock) for c in side] for side in (costs, bare))) for clock in ("cpu", "wall"))
        median = Cost(*(float(np.median([getattr(c, clock) for c in costs])) for clock in ("wall", "cpu")))
        return cls(what, against, *ratios, median, len(costs), about)


def step(arguments: argparse.Namespace) -> Iterator[Row]:
    steps, image = 10, fit_image(load_image(PHOTO), SIZE["height"], SIZE["width"])
    moments = unleak.AnalyticInit.from_pretrained(Path(NANO.source) / "moments.safetensors")
    settings: dict[str, dict[str, Any] | None] = {
        "plain": None,
        "start": {"start": "sigma=20"},
        "start, analytic": {"start": "sigma=20", "init": moments},
        "start, truncate": {"start": "sigma=20", "mode": "truncate"},
        "guidance interval": {"strategies": [unleak.GuidanceInterval(low="sigma=0.01")]},
    }

    def sampled(settings: dict[str, Any] | None) -> Callable[[], Cost]:
        pipe = quiet(unleak.load("nano"))
        if settings is not None:
            unleak.apply(pipe, **settings)
        run = len(unleak.summary(pipe, num_inference_steps=steps).after) - 1 if settings else steps

        def call() -> Cost:
            spent = cost(
                lambda: pipe(
                    image,
                    num_inference_steps=steps,
                    output_type="latent",
                    generator=torch.Generator().manual_seed(0),
                )
            )
            return Cost(spent.wall / run, spent.cpu / run)

        return call

    costs = take_turns({name: sampled(values) for name, values in settings.items()}, rounds=arguments.rounds)
    for name in list(settings)[1:]:
        yield Row.of(f"step, {name}", "plain step", costs[name], costs["plain"])


def matched(arguments: argparse.Namespace) -> Iterator[Row]:
    from benchmarks.evidence.measures import measure
    from benchmarks.evidence.methods import Model
    from benchmarks.evidence.scenes import Scenes

    protocol = yaml.safe_load((HERE / "evidence" / "protocol.yaml").read_text())
    model, scenes = Model("nano", protocol), Scenes(protocol, arguments.photos, "validation")
    jobs = [(scenes[i], noise) for i in range(arguments.clips) for noise in range(2)]
    batches = [jobs[k : k + 4] for k in range(0, len(jobs), 4)]
    settings: dict[str, dict[str, Any]] = {"plain": {}}
    for steps in TRUNCATED:
        settings[f"truncate of {steps} steps"] = {
            "start": NANO.start, "init": "analytic", "mode": "truncate", "steps": steps,
        }  # fmt: skip
    costs: dict[str, list[Cost]] = {name: [] for name in settings}
    seen: dict[str, list[dict[str, Any]]] = {name: [] for name in settings}
    for k, batch in enumerate(batches):
        for name in list(settings)[:: 1 if k % 2 == 0 else -1]:
            began = now()
            videos = model.animate(batch, **settings[name])
            costs[name].append(now() - began)
            seen[name] += [measure(v, scene, scored=False) for v, (scene, _) in zip(videos, batch, strict=True)]

    def mean(name: str) -> dict[str, float]:
        rows = seen[name]
        speed = np.mean([np.hypot(row["dx"], row["dy"]) * (not row["broken"]) for row in rows])
        means = {key: float(np.mean([row[key] for row in rows])) for key in ("moves", "broken", "nearest")}
        return {"speed": float(speed), **means}

    plain = mean("plain")
    rows = []
    for steps in TRUNCATED:
        name = f"truncate of {steps} steps"
        with unleak.applied(model.pipe, start=NANO.start, mode="truncate"):
            run = len(unleak.summary(model.pipe, num_inference_steps=steps).after) - 1
        about = {"steps run": run, "videos": len(jobs), "plain": plain, **mean(name)}
        rows.append(Row.of(f"sampling, {name}: {run} are run", "plain, 25 steps", costs[name], costs["plain"], **about))
    good = [r for r in rows if r.about["moves"] >= plain["moves"] and r.about["broken"] <= plain["broken"]]
    for row in rows:
        row.about["cheapest at matched motion"] = bool(good) and row is good[-1]
    yield from rows


def generate(arguments: argparse.Namespace) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "bare.py")
        script.write_text(BARE_GENERATE)
        commands = {
            "unleak": ("-m", "unleak", "generate", str(PHOTO), "--out", folder, "--overwrite", "--quiet"),
            "bare": (str(script), NANO.source, str(PHOTO), str(Path(folder, "bare.mp4"))),
        }
        costs = children(commands, rounds=max(3, arguments.rounds // 3))
    yield Row.of("unleak generate photo.jpg, cold", "bare diffusers script", costs["unleak"], costs["bare"])


def help_(arguments: argparse.Namespace) -> Iterator[Row]:
    costs = children({"unleak": ("-m", "unleak", "--help"), "bare": ("-c", "import typer")}, rounds=arguments.rounds)
    yield Row.of("unleak --help", "python -c 'import typer'", costs["unleak"], costs["bare"])


def refusal(arguments: argparse.Namespace) -> Iterator[Row]:
    wrong = ("-m", "unleak", "generate", str(PHOTO), "--size", "20x21")
    costs = take_turns(
        {
            "unleak": lambda: child_cost(*wrong, ends_with=2),
            "bare": lambda: child_cost("-c", "import typer, numpy, PIL"),
        },
        rounds=arguments.rounds,
    )
    what, against = "unleak generate with a wrong size, refused", "python -c 'import typer, numpy, PIL'"
    yield Row.of(what, against, costs["unleak"], costs["bare"])


def import_(arguments: argparse.Namespace) -> Iterator[Row]:
    costs = children({"unleak": ("-c", "import unleak"), "bare": ("-c", "pass")}, rounds=arguments.rounds)
    yield Row.of("import unleak", "python -c pass", costs["unleak"], costs["bare"])


def children(commands: dict[str, tuple[str, ...]], *, rounds: int) -> dict[str, list[Cost]]:
    return take_turns(
        {name: lambda command=command: child_cost(*command) for name, command in commands.items()}, rounds=rounds
    )


def train(arguments: argparse.Namespace) -> Iterator[Row]:
    from unleak.train import trainer
    from unleak.train.config import parse_recipe
    from unleak.train.log import Log

    costs: dict[str, list[Cost]] = {"unleak": [], "bare": []}
    with tempfile.TemporaryDirectory() as folder:
        data = {"kind": "synthetic", "photos": str(PHOTO.parent), "length": 32, "cache": f"{folder}/cache"}
        recipe = parse_recipe({
            "model": "nano", "output": f"{folder}/out", "data": data, "condition": {"noise": "none"}, "lr": 1e-6,
            "steps": arguments.rounds + 2, "batch_size": arguments.batch, "log_every": 10**6, "checkpoint_every": 10**6,
        })  # fmt: skip
        bare: BareLoop | None = None

        class TakingTurns(Log):
            def __enter__(self) -> "TakingTurns":
                nonlocal bare
                bare = BareLoop(Path(recipe.data.cache), arguments.batch)
                super().__enter__()
                self.began = now()
                return self

            def advance(self, step: int) -> None:
                super().advance(step)
                costs["unleak"].append(now() - self.began)
                costs["bare"].append(cost(bare.step))
                self.began = now()

        with patch.object(trainer, "Log", TakingTurns):
            trainer.train(recipe, quiet=True)
    what = f"training step, batch of {arguments.batch}"
    yield Row.of(what, "bare loop", *(costs[name][2:] for name in ("unleak", "bare")))  # the first steps allocate


class BareLoop:
    """Fine-tuning of the nano model as one would write it in an afternoon, on the same latents."""

    def __init__(self, cache: Path, batch: int):
        folder = next(path for path in cache.iterdir() if path.is_dir())
        self.latents = torch.from_numpy(np.load(folder / "latents.npy").astype(np.float32))
        self.images = torch.from_numpy(np.load(folder / "first_frames.npy")).permute(0, 3, 1, 2).float() / 127.5 - 1
        self.pipe, self.batch = unleak.load("nano", device="cpu"), batch
        self.pipe.image_encoder.requires_grad_(False)
        self.unet = self.pipe.unet.float().train().requires_grad_(True)
        self.weights = list(self.unet.parameters())
        self.optimizer = torch.optim.AdamW(self.weights, lr=1e-6, weight_decay=0.01, fused=True)
        self.average = [weight.detach().clone() for weight in self.weights]

    def step(self) -> None:
        from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing

        chosen = torch.randint(len(self.latents), (self.batch,))
        x_0, image = self.latents[chosen], self.images[chosen]
        sigma = (1.2 * torch.randn(self.batch) - 1.2).exp()
        root = (sigma**2 + 1).sqrt().view(-1, 1, 1, 1, 1)
        x_t = x_0 + sigma.view(-1, 1, 1, 1, 1) * torch.randn_like(x_0)
        kept = (torch.rand(self.batch) > 0.1).float()
        with torch.no_grad():
            processor = self.pipe.feature_extractor
            mean, std = (torch.tensor(v).view(3, 1, 1) for v in (processor.image_mean, processor.image_std))
            pixels = (_resize_with_antialiasing(image, (224, 224)).add_(1).div_(2).sub_(mean)).div_(std)
            embeddings = self.pipe.image_encoder(pixels).image_embeds[:, None] * kept.view(-1, 1, 1)
        first = x_0[:, :, :1] / self.pipe.vae.config.scaling_factor * kept.view(-1, 1, 1, 1, 1)
        sample = torch.cat([x_t / root, first.expand_as(x_0)], 1).transpose(1, 2)
        ids = torch.tensor([6.0, 127.0, 0.0]).expand(self.batch, 3)
        output = self.unet(sample, sigma.log() / 4, encoder_hidden_states=embeddings, added_time_ids=ids).sample
        sigma = sigma.view(-1, 1, 1, 1, 1)
        clean = x_t / root**2 - sigma / root * output.transpose(1, 2)
        loss = ((root / sigma) ** 2 * (clean - x_0) ** 2).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.weights, 1e-4)


def stats(arguments: argparse.Namespace) -> Iterator[Row]:
    from benchmarks.stats_throughput import make_videos, named, side_by_side

    pipe = unleak.load("nano", only=("vae",), device="cpu")
    clip = {**SIZE, "fps": 7.0}
    with tempfile.TemporaryDirectory() as folder:
        videos = make_videos(Path(folder, "few"), number=4, width=320, height=180, seconds=4)
        costs = side_by_side(pipe, clip, named(videos, Path(folder, "many"), 48), workers=1, rounds=arguments.rounds)
    yield Row.of("unleak stats, 48 clips, one worker", "bare VAE encode", costs["stats"], costs["bare"])


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


SECTIONS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "step": step, "matched": matched, "generate": generate, "help": help_, "refusal": refusal, "import": import_,
    "train": train, "stats": stats,
}  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| | against | processor time | wall time | seconds (processor) |", "|---|---|---|---|---|"]
    for row in rows:
        ratios = " | ".join(str(Ratio(**row[clock])) for clock in ("processor", "wall"))
        about = row["about"]
        more = "".join(f"; {about[k]:.0%} {k}" for k in ("moves", "broken") if k in about)
        if "plain" in about:
            more += f" (plain {about['plain']['moves']:.0%}, {about['plain']['broken']:.0%})"
        if about.get("cheapest at matched motion"):
            more += "; **matched motion**"
        lines.append(f"| {row['what']}{more} | {row['against']} | {ratios} | {row['seconds']['cpu']:.3f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--only", nargs="*", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--clips", type=int, default=24, help="clips of `matched`, two noises each")
    parser.add_argument("--batch", type=int, default=8, help="clips of a training step")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "speed")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        rows = [asdict(row) for row in SECTIONS[name](arguments)]
        about = {"threads": torch.get_num_threads(), "cores": os.cpu_count(), "torch": torch.__version__}
        (arguments.out / f"{name}.json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
        print(table(rows), flush=True)
    files = [arguments.out / f"{name}.json" for name in SECTIONS]
    everything = [row for file in files if file.exists() for row in json.loads(file.read_text())["rows"]]
    (arguments.out / "table.md").write_text(table(everything) + "\n")


if __name__ == "__main__":
    main()
