"""Measure a nano model on photos it never saw: who moves, who breaks, how sharp the last frame is.

    python recipes/nano/measure.py PHOTOS [--model nano] [--noises 8] [--settings plain low medium high] [--sheet PNG]

Each photo is animated from the same noises (seeds 0, 1, ...) with each setting: plain, a preset of `motion`, or a start
such as `sigma=10`. The lines go to standard output, everything measured to `--json`. A video

- is *broken* when no camera motion explains more than a third of its pairs of frames, or its last frame correlates by
  less than 0.7 with every view of the photo that its law of motion allows, where the two overlap;
- *moves* when it is not broken and the edge of its frame moves by 0.4 % of its side per frame or more.

Sharpness is the mean absolute difference of neighbouring pixels, of the last frame over the first.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

import unleak
from unleak.animate.noise import initial_noise
from unleak.animate.settings import Settings
from unleak.data.image import fit_image, load_image
from unleak.data.synthetic import PHOTO_SUFFIXES
from unleak.measure.motion import camera_motion
from unleak.zoo.registry import find_model

MOVES = 0.004  # of the frame's side, per frame
LOST_PAIRS = 1 / 3
LIKE = 0.7


def main() -> None:
    """Animate, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a folder of photos")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--noises", type=int, default=8)
    parser.add_argument("--settings", nargs="+", default=["plain", "low", "medium", "high"])
    parser.add_argument("--guidance", type=float, help="the last frame's guidance; the model's default otherwise")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--sheet", type=Path, help="a picture of the first eight videos of each setting")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    spec = find_model("nano")
    pipe = unleak.load(options.model, device="cpu")
    pipe.set_progress_bar_config(disable=True)
    paths = sorted(path for path in options.photos.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES)
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    photos = [fit_image(load_image(path), side, side) for path in paths]
    rows, sheet = [], []
    for setting in options.settings:
        started = time.process_time()
        videos = [video for photo in photos for video in _animate(pipe, spec, photo, setting, options)]
        seconds = (time.process_time() - started) / len(videos)
        measured = [measure(video, np.asarray(photos[i // options.noises])) for i, video in enumerate(videos)]
        names = [(paths[i // options.noises].stem, i % options.noises) for i in range(len(videos))]
        rows += [{"setting": setting, "photo": n, "seed": s, **m} for (n, s), m in zip(names, measured, strict=True)]
        sheet += [np.concatenate(list(video[[0, 3, 6, 9, -1]]), 1) for video in videos[:8]]
        print(summary(setting, measured), f"{seconds:.1f} s of processor time a video", flush=True)
    if options.sheet:
        Image.fromarray(np.concatenate(sheet)).save(options.sheet)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


def _animate(pipe: Any, spec: Any, photo: Image.Image, setting: str, options: argparse.Namespace) -> np.ndarray:
    """Return uint8 videos [noises, f, h, w, 3] of one photo."""
    call = dict(spec.defaults, num_inference_steps=options.steps, output_type="np", height=photo.height)
    call |= {"width": photo.width, "generator": [torch.Generator().manual_seed(s) for s in range(options.noises)]}
    call["decode_chunk_size"] = call["num_frames"] * options.noises
    if options.guidance is not None:
        call |= {"min_guidance_scale": min(1.0, options.guidance), "max_guidance_scale": options.guidance}
    images = [photo] * options.noises
    if setting == "plain":
        frames = pipe(images, **call).frames
    else:
        start = spec.motion_starts.get(setting, setting)
        with unleak.applied(pipe, start=start, init=initial_noise(Settings.for_model(spec), spec)):
            frames = pipe(images, **call).frames
    return (np.asarray(frames) * 255).round().astype(np.uint8)


def measure(video: np.ndarray, photo: np.ndarray) -> dict[str, Any]:
    """Return what the module's head explains, of one uint8 video [f, h, w, 3] of `photo` [h, w, 3]."""
    side, steps = video.shape[1], len(video) - 1
    pairs = camera_motion(video)
    there = pairs[np.isfinite(pairs).all(1)]
    dx, dy, zoom, _ = np.median(there, 0) if len(there) else np.zeros(4)
    edge = float(np.hypot(dx, dy) + abs(zoom) * side / 2) / side
    likeness = _likeness(video[-1], photo, dx * steps, dy * steps, zoom * steps)
    broken = 1 - len(there) / len(pairs) > LOST_PAIRS or max(likeness, _likeness(video[-1], photo, 0, 0, 0)) < LIKE
    error = (video[0].astype(float) - photo).ravel() / 255
    return {
        "moves": bool(not broken and edge >= MOVES),
        "broken": bool(broken),
        "kind": _kind(dx, dy, zoom * side / 2) if edge >= MOVES else "still",
        "edge": edge,
        "sharpness": _sharpness(video[-1]) / _sharpness(video[0]),
        "first_frame": float(-10 * np.log10(np.square(error).mean())),
        "likeness": likeness,
    }


def _kind(dx: float, dy: float, zoom: float) -> str:
    if abs(zoom) > max(abs(dx), abs(dy)):
        return "in" if zoom > 0 else "out"
    return ("right" if dx > 0 else "left") if abs(dx) > abs(dy) else ("down" if dy > 0 else "up")


def _likeness(frame: np.ndarray, photo: np.ndarray, dx: float, dy: float, zoom: float) -> float:
    """Return the correlation of `frame` with `photo` moved by (dx, dy) and grown by exp(zoom), where both are."""
    side, grown = photo.shape[0], float(np.exp(zoom))
    middle = (side - 1) / 2
    move = np.array([[grown, 0, middle * (1 - grown) + dx], [0, grown, middle * (1 - grown) + dy]])
    moved = cv2.warpAffine(photo, move, (side, side), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    seen = cv2.warpAffine(np.ones((side, side), np.uint8), move, (side, side), flags=cv2.INTER_NEAREST) > 0
    if seen.mean() < 0.2:
        return 0.0
    return float(np.corrcoef(frame[seen].astype(float).ravel(), moved[seen].astype(float).ravel())[0, 1])


def _sharpness(frame: np.ndarray) -> float:
    grey = frame.astype(float).mean(-1)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())


def summary(setting: str, rows: list[dict[str, Any]]) -> str:
    """Return one line of the table."""
    mean = {key: float(np.mean([row[key] for row in rows])) for key in ("moves", "broken", "first_frame")}
    sharpness = float(np.median([row["sharpness"] for row in rows]))
    kinds = Counter(row["kind"] for row in rows if row["moves"])
    return (
        f"{setting:>10}: {len(rows)} videos, {mean['moves']:.0%} move, {mean['broken']:.0%} broken, last frame's "
        f"sharpness {sharpness:.2f}, first frame {mean['first_frame']:.1f} dB, {dict(kinds)},"
    )


if __name__ == "__main__":
    main()
