"""Numbers of one video of a scene, and of a method's videos together."""

from typing import Any

import numpy as np

from benchmarks.evidence2.scenes import Scene
from unleak.measure.fidelity import first_frame_psnr, nearest_clip, sharpness
from unleak.measure.intervals import mean_of
from unleak.measure.motion import camera_motion

BEST_PSNR = 60.0


def measure(frames: np.ndarray, scene: Scene, protocol: dict[str, Any]) -> dict[str, Any]:
    """Measure a video; protocol.yaml says what `broken` and `moves` are."""
    side = frames.shape[1]
    pairs = camera_motion(frames)
    there = pairs[np.isfinite(pairs).all(1)]
    dx, dy, zoom, _ = np.median(there, 0) if len(there) else np.zeros(4)
    edge = float(np.hypot(dx, dy) + abs(zoom) * side / 2) / side
    nearest, sharp = nearest_clip(frames, scene.videos), sharpness(frames)
    lost = 1 - len(there) / len(pairs)
    broken = bool(lost > protocol["lost_pairs"] or nearest.last_frame > protocol["far_frame"])
    return {
        "moves": bool(not broken and edge >= protocol["moves"]),
        "broken": broken,
        "edge": round(edge, 5),
        "first_frame": round(min(first_frame_psnr(frames, scene.videos[0, 0]), BEST_PSNR), 2),
        "fidelity": round(float(min(BEST_PSNR, 20 * np.log10(255 / max(nearest.distance, 1e-3)))), 2),
        "sharpness": round(float(sharp[-1] / sharp[0]) if sharp[0] else 1.0, 3),
    }


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over training seeds of what each gave, with 95 % intervals over photos."""
    found: dict[str, Any] = {"videos": len(rows)}
    for name in ("moves", "broken", "first_frame", "fidelity", "sharpness", "seconds"):
        by_photo: dict[str, list[float]] = {}
        by_seed: dict[int, list[float]] = {}
        for row in rows:
            by_photo.setdefault(row["photo"], []).append(float(row[name]))
            by_seed.setdefault(row["training_seed"], []).append(float(row[name]))
        each = [float(np.mean(values)) for _, values in sorted(by_seed.items())]
        interval = mean_of(by_photo)
        found[name] = {"value": float(np.mean(each)), "low": interval.low, "high": interval.high, "each": each}
    return found
