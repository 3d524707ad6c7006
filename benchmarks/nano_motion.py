"""How nano moves held-out photos, plain and with a lower start: the table in the README.

    python benchmarks/nano_motion.py PHOTOS [--model nano] [--clips 32] [--guidance 1:3]

PHOTOS is the test split that recipes/nano/photos.py writes. Each setting animates the first frames of the same
procedural clips from the same noise. Columns: pan speed of the camera (px/frame; mean over clips of the median over
pairs), its relation to the true clips' speed, share of clips that hardly move (below 0.3 px/frame), share of frame
pairs that no camera motion explains (dissolution), distance of frame 0 from the photo (RMSE, grey levels), and detail
of the last frame (mean absolute difference of neighbouring pixels, real = 1).
"""

import argparse
import time

import numpy as np
import torch
from PIL import Image

import unleak
from unleak.data.synthetic import MotionRange, SyntheticClips
from unleak.evaluate.motion import camera_motion
from unleak.zoo.registry import find_model
from unleak.zoo.sample import initial_noise

SETTINGS = ("1.0T standard", "sigma=100 standard", "sigma=20 standard", "sigma=10 standard", "sigma=5 standard",
            "sigma=5 analytic", "sigma=3 standard", "sigma=2 standard")  # fmt: skip


# That of recipes/nano/naive.yaml, without the clips that rest: each clip shown has something to lose.
LAW = MotionRange(min_speed=1.0, max_speed=1.0, directions=2, max_log_zoom=0.0, max_rotation=0.0, still=0.0)


def describe(videos: np.ndarray, real: np.ndarray) -> dict[str, float]:
    pairs = np.stack([camera_motion(video) for video in videos])
    explained = np.isfinite(pairs[..., 0])
    speeds = np.array(
        [np.hypot(*np.nanmedian(p[:, :2], 0)) if ok.any() else np.nan for p, ok in zip(pairs, explained, strict=True)]
    )
    detail = [np.abs(np.diff(frames[:, -1].astype(float), axis=2)).mean() for frames in (videos, real)]
    return {
        "speed": float(np.nanmean(speeds)),
        "still": float(np.mean(speeds < 0.3)),
        "unexplained": float(1 - explained.mean()),
        "frame0": float(np.sqrt(np.mean((videos[:, 0].astype(float) - real[:, 0]) ** 2))),
        "detail": detail[0] / detail[1],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("photos")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guidance", default="1:3")
    parser.add_argument("--mode", default="rescale")
    parser.add_argument("--settings", nargs="*", default=SETTINGS)
    arguments = parser.parse_args()
    low, high = map(float, arguments.guidance.split(":"))
    pipe = unleak.load(arguments.model)
    pipe.set_progress_bar_config(disable=True)
    clips = SyntheticClips(arguments.photos, seed=7, length=10_000, motion=LAW)
    real = np.stack([clips.clip(i).video.numpy() for i in range(arguments.clips)])
    images = [Image.fromarray(video[0]) for video in real]
    generators = [torch.Generator().manual_seed(arguments.seed + i) for i in range(len(images))]
    print(f"guidance {arguments.guidance}, {arguments.mode}, {arguments.clips} clips\n")
    print("| start, init | speed px/frame | of real | hardly moves | unexplained | frame 0 RMSE | detail | s/clip |")
    print("|---|---|---|---|---|---|---|---|")
    truth = describe(real, real)
    row = "| {} | {speed:.2f} | {ratio:.2f} | {still:.0%} | {unexplained:.0%} | {frame0:.1f} | {detail:.2f} | {s} |"
    print(row.format("real clips", **truth, ratio=1, s=""))
    for setting in arguments.settings:
        start, init = setting.split()
        noise = initial_noise(init, find_model(arguments.model))
        began = time.monotonic()
        with unleak.applied(pipe, start=start, init=noise, mode=arguments.mode):
            videos = np.concatenate([
                pipe(
                    images[i : i + 8], height=64, width=64, num_frames=12, noise_aug_strength=0.0, output_type="np",
                    min_guidance_scale=low, max_guidance_scale=high, decode_chunk_size=96,
                    generator=[g.manual_seed(g.initial_seed()) for g in generators[i : i + 8]],
                ).frames
                for i in range(0, len(images), 8)
            ])  # fmt: skip
        seen = describe((videos * 255).round().astype(np.uint8), real)
        seconds = f"{(time.monotonic() - began) / len(images):.1f}"
        print(row.format(setting, **seen, ratio=seen["speed"] / truth["speed"], s=seconds), flush=True)


if __name__ == "__main__":
    main()
