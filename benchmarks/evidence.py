"""What each strategy does on known motion: the table and the plot of the README.

    python benchmarks/evidence.py PHOTOS [--quick] [--out benchmarks/results]

PHOTOS is the test split that recipes/nano/photos.py writes. The protocol, evidence.yaml, was fixed before any result.
Each method's videos are measured and forgotten; its numbers are kept in OUT, so that a stopped run goes on and
`--shard I/N` shares the work. Columns:

speed     |dx| of the camera, px/frame (median over pairs; the law's mean is 0.85), with a 95 % bootstrap interval over
          photos and noises; failures count as 0
energy    energy distance of a photo's velocities to the law, mean over photos: 0 is right, always still is 0.73
still     share below 0.3 px/frame
broken    share of videos in which more than a third of the frame pairs fit no camera motion, or whose last frame is
          more than 30 grey levels from every valid one
nearest   distance to the nearest valid clip of that photo, grey levels, through the autoencoder
frame 0   distance of the first frame from the photo, dB
flicker   second difference of the mean colour, grey levels
s         seconds a clip, this machine
"""

import argparse
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from einops import rearrange
from PIL import Image
from scipy.stats import bootstrap

import unleak
from unleak.data.pixels import to_unit
from unleak.data.synthetic import Motion, SyntheticClips
from unleak.evaluate.distribution import energy_distance_to_law
from unleak.evaluate.fidelity import first_frame_psnr, flicker, nearest_clip
from unleak.evaluate.motion import camera_motion, motion_score
from unleak.evaluate.oracle import euler, posterior_mean
from unleak.families.svd.denoiser import SVDDenoiser

BATCH = 12
MEANS = ("broken", "nearest", "frame0", "flicker", "score")


@dataclass(frozen=True)
class Scene:
    """A held-out clip: its videos under each velocity of the law, all from one first frame."""

    photo: str
    videos: np.ndarray

    @property
    def image(self) -> Image.Image:
        return Image.fromarray(self.videos[0, 0])


class Evidence:
    """One model, one split."""

    def __init__(self, protocol: dict[str, Any], photos: Path, model: str, *, split: str, clips: int, noises: int):
        self.protocol, self.noises = protocol, noises
        self.pipe = unleak.load(model)
        self.pipe.set_progress_bar_config(disable=True)
        self.denoiser = SVDDenoiser(self.pipe)
        self.velocities = np.array([entry["velocity"] for entry in protocol["law"]])
        self.probabilities = np.array([entry["probability"] for entry in protocol["law"]])
        self.scenes = list(self._scenes(photos, split, clips))

    def _scenes(self, photos: Path, split: str, clips: int) -> Iterator[Scene]:
        dataset = SyntheticClips(photos, seed=self.protocol["seed"], length=10**6)
        cameras = [Motion(*velocity) for velocity in self.velocities]
        validation, found, index = set(self.protocol["split"]["validation"]), 0, -1
        while found < clips:
            index += 1
            photo = dataset.clip(index).photo
            if (photo in validation) == (split == "validation"):
                found += 1
                yield Scene(photo, dataset.alternatives(index, cameras).numpy())

    def seeds(self) -> list[tuple[int, int]]:
        """(scene, noise) of every video."""
        return [(i, j) for i in range(len(self.scenes)) for j in range(self.noises)]

    def animate(
        self,
        jobs: list[tuple[int, int]],
        *,
        guidance: str = "1:3",
        start: str = "1.0T",
        init: str = "standard",
        mode: str = "rescale",
        steps: int = 25,
        noise_aug_strength: float = 0.0,
        strategies: tuple[Any, ...] = (),
    ) -> np.ndarray:
        """Videos of the pipeline."""
        low, high = map(float, guidance.split(":"))
        moments = Path(self.pipe.config._name_or_path) / "moments.safetensors"
        noise = unleak.AnalyticInit.from_pretrained(moments) if init == "analytic" else init
        generators = [torch.Generator().manual_seed(self.noise_seed(*job)) for job in jobs]
        with unleak.applied(self.pipe, start=start, init=noise, mode=mode, strategies=list(strategies)):
            frames = self.pipe(
                [self.scenes[i].image for i, _ in jobs], height=64, width=64, num_frames=12, num_inference_steps=steps,
                noise_aug_strength=noise_aug_strength, min_guidance_scale=low, max_guidance_scale=high,
                decode_chunk_size=96, generator=generators, output_type="np",
            ).frames  # fmt: skip
        return (np.asarray(frames) * 255).round().astype(np.uint8)

    def oracle(self, jobs: list[tuple[int, int]], *, sigma: float = 700.0) -> np.ndarray:
        """Samples of the exact posterior over the law, by the pipeline's own steps, from sigma * eps."""
        with torch.inference_mode():
            clips = torch.stack(
                [self.denoiser.encode_video(to_unit(torch.from_numpy(self.scenes[i].videos))) for i, _ in jobs]
            )
            generators = [torch.Generator().manual_seed(self.noise_seed(*job)) for job in jobs]
            eps = torch.stack([torch.randn(clips.shape[2:], generator=generator) for generator in generators])
            with unleak.applied(self.pipe, start=f"sigma={sigma}"):
                sigmas = torch.tensor(unleak.summary(self.pipe, num_inference_steps=25).after)
            predict = posterior_mean(clips, torch.from_numpy(self.probabilities).float())
            return self._decode(euler(predict, (sigma**2 + 1) ** 0.5 * eps, sigmas))

    def real(self, jobs: list[tuple[int, int]]) -> np.ndarray:
        """The clips themselves, each moving as the law draws."""
        draws = [
            np.random.default_rng(self.noise_seed(*job)).choice(len(self.velocities), p=self.probabilities)
            for job in jobs
        ]
        return np.stack([self.scenes[i].videos[k] for (i, _), k in zip(jobs, draws, strict=True)])

    def reconstructed(self, jobs: list[tuple[int, int]]) -> np.ndarray:
        """The same through the autoencoder: the best that latents can hold."""
        with torch.inference_mode():
            return self._decode(self.denoiser.encode_video(to_unit(torch.from_numpy(self.real(jobs)))))

    def _decode(self, latents: torch.Tensor) -> np.ndarray:
        frames = self.pipe.decode_latents(rearrange(latents, "b c f h w -> b f c h w"), latents.shape[2], 96)
        pixels = ((frames.clamp(-1, 1) + 1) * 127.5).round().byte()
        return rearrange(pixels, "b c f h w -> b f h w c").numpy()

    def noise_seed(self, scene: int, noise: int) -> int:
        return 1000 * self.protocol["seed"] + 100 * scene + noise

    def measure(self, video: np.ndarray, scene: Scene) -> dict[str, float]:
        pairs = camera_motion(video)
        lost = float(np.isnan(pairs[:, 0]).mean())
        dx, dy = np.nanmedian(pairs[:, :2], 0) if lost < 1 else (0.0, 0.0)
        nearest = nearest_clip(video, scene.videos)
        return {
            "dx": float(dx), "dy": float(dy), "lost": lost, "broken": float(lost > 1 / 3 or nearest.last_frame > 30),
            "nearest": nearest.distance, "frame0": min(first_frame_psnr(video, scene.videos[0, 0]), 60.0),
            "flicker": flicker(video), "score": motion_score(video).value,
        }  # fmt: skip

    def run(self, make: Callable[[list[tuple[int, int]]], np.ndarray], shard: tuple[int, int]) -> dict[str, Any]:
        jobs = self.seeds()[shard[0] :: shard[1]]
        rows, seconds = [], 0.0
        for first in range(0, len(jobs), BATCH):
            batch = jobs[first : first + BATCH]
            began = time.monotonic()
            videos = make(batch)
            seconds += time.monotonic() - began
            for (i, j), video in zip(batch, videos, strict=True):
                rows.append(
                    {"scene": i, "noise": j, "photo": self.scenes[i].photo, **self.measure(video, self.scenes[i])}
                )
        return {"rows": rows, "seconds": seconds / len(jobs)}

    def summarize(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        speeds = np.array([abs(row["dx"]) * (not row["broken"]) for row in rows])
        photos = np.array([row["photo"] for row in rows])
        energies = []
        for scene in sorted({row["scene"] for row in rows}):
            found = np.array([[row["dx"], row["dy"]] for row in rows if row["scene"] == scene])
            if len(found) > 1:
                energies.append(energy_distance_to_law(found, self.velocities, self.probabilities))
        # Clips of one photo are not independent: photos are drawn, then their clips with them.
        names = np.unique(photos)

        def mean_speed(drawn: np.ndarray) -> float:
            return float(np.concatenate([speeds[photos == names[k]] for k in drawn.astype(int)]).mean())

        interval = (
            bootstrap((np.arange(len(names)),), mean_speed, vectorized=False, n_resamples=999, method="percentile",
                      rng=np.random.default_rng(0)).confidence_interval
            if len(names) > 1 else (np.nan, np.nan)
        )  # fmt: skip
        means = {name: float(np.mean([row[name] for row in rows])) for name in MEANS}
        return {
            "speed": float(speeds.mean()),
            "interval": list(map(float, interval)),
            "still": float((speeds < 0.3).mean()),
            "energy": float(np.mean(energies)) if energies else None,
            **means,
        }


def methods(evidence: Evidence, chosen: dict[str, Any]) -> dict[str, Callable[[list[tuple[int, int]]], np.ndarray]]:
    """Every row of the table, in its order."""

    table: dict[str, Callable[[list[tuple[int, int]]], np.ndarray]] = {
        "real clips": evidence.real,
        "real clips through the autoencoder": evidence.reconstructed,
        "oracle": evidence.oracle,
        "oracle, start 20": partial(evidence.oracle, sigma=20.0),
        "plain": evidence.animate,
        "plain, guidance 1": partial(evidence.animate, guidance="1:1"),
    }
    for name, knob in evidence.protocol["knobs"].items():
        table[f"{name} {chosen[name]}"] = partial(evidence.animate, **setting(knob["key"], chosen[name]))
    for sigma in evidence.protocol["starts"]:
        for init in ("standard", "unit", "analytic"):
            table[f"start {sigma}, {init}"] = partial(evidence.animate, start=f"sigma={sigma}", init=init)
        table[f"start {sigma}, guidance 1"] = partial(evidence.animate, start=f"sigma={sigma}", guidance="1:1")
    best = chosen["start, standard"]
    table[f"start {best}, truncate of 40 steps"] = partial(
        evidence.animate, start=f"sigma={best}", mode="truncate", steps=40
    )
    return table


def setting(key: str, value: Any) -> dict[str, Any]:
    """The arguments of `Evidence.animate` for one value of a knob."""
    match key:
        case "start":
            return {"start": f"sigma={value}"}
        case "guidance_interval":
            return {"strategies": (unleak.GuidanceInterval(high=value[1], low=value[0]),)}
        case "low_pass":
            return {"strategies": (unleak.LowPass(value, interval=(0.0, 0.1)),)}
    return {key: value}


def tune(evidence: Evidence) -> dict[str, Any]:
    """The best value of every knob on the validation photos, with all that was tried."""
    chosen, tried = {}, {}
    for name, knob in evidence.protocol["knobs"].items():
        results = []
        for value in knob["trials"]:
            rows = evidence.run(partial(evidence.animate, **setting(knob["key"], value)), (0, 1))["rows"]
            results.append({"value": value, **evidence.summarize(rows)})
            print(
                f"validation  {name} {value}: energy {results[-1]['energy']:.3f}, speed {results[-1]['speed']:.2f}",
                flush=True,
            )
        tried[name] = results
        chosen[name] = min(results, key=lambda result: result["energy"])["value"]
    return {"chosen": chosen, "tried": tried}


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown, one row a method."""
    lines = [
        "| method | speed | energy | still | broken | nearest | frame 0 | flicker | s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, r in results.items():
        low, high = r["interval"]
        lines.append(
            f"| {name} | {r['speed']:.2f} ({low:.2f} to {high:.2f}) | {r['energy']:.2f} | {r['still']:.0%} "
            f"| {r['broken']:.0%} | {r['nearest']:.1f} | {r['frame0']:.1f} | {r['flicker']:.2f} | {r['seconds']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--clips", type=int)
    parser.add_argument("--noises", type=int)
    parser.add_argument("--shard", default="0/1", help="I/N: this process's share; all shards write into one OUT")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/evidence"))
    arguments = parser.parse_args()
    protocol = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    clips = arguments.clips or (24 if arguments.quick else protocol["clips"])
    noises = arguments.noises or (2 if arguments.quick else protocol["noises"])
    shard, of = map(int, arguments.shard.split("/"))
    arguments.out.mkdir(parents=True, exist_ok=True)

    knobs = arguments.out / "knobs.json"
    if not knobs.exists():
        split = Evidence(
            protocol, arguments.photos, arguments.model, split="validation", clips=max(clips // 4, 8), noises=noises
        )
        knobs.write_text(json.dumps(tune(split), indent=1))
    chosen = json.loads(knobs.read_text())["chosen"]
    evidence = Evidence(protocol, arguments.photos, arguments.model, split="test", clips=clips, noises=noises)
    results: dict[str, dict[str, Any]] = {}
    for name, make in methods(evidence, chosen).items():
        stem = re.sub(r"[^a-z0-9.]+", "_", name.lower())
        path = arguments.out / f"{stem}-{shard}of{of}.json"
        if not path.exists():
            path.write_text(json.dumps(evidence.run(make, (shard, of))))
        parts = [json.loads(p.read_text()) for p in sorted(arguments.out.glob(f"{stem}-*of{of}.json"))]
        rows = [row for part in parts for row in part["rows"]]
        results[name] = {
            **evidence.summarize(rows),
            "seconds": float(np.mean([p["seconds"] for p in parts])),
            "videos": len(rows),
        }
        print(table({name: results[name]}).splitlines()[-1], flush=True)
    (arguments.out / "table.md").write_text(table(results) + "\n")
    (arguments.out / "table.json").write_text(
        json.dumps({"clips": clips, "noises": noises, "chosen": chosen, "methods": results}, indent=1)
    )
    print(table(results))


if __name__ == "__main__":
    main()
