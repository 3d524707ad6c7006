"""Numbers of one video, and of a method's videos together."""

from typing import Any

import numpy as np
from einops import reduce

from benchmarks.evidence.scenes import Law, Scene
from unleak.evaluate.distribution import energy_distance_to_law, mmd2
from unleak.evaluate.fidelity import first_frame_psnr, flicker, nearest_clip
from unleak.evaluate.motion import camera_motion, motion_score

MOVES = 0.3  # px/frame
LOST_PAIRS, FAR_FRAME = 1 / 3, 30.0  # of the pairs; grey levels
RESAMPLES = 999


def measure(video: np.ndarray, scene: Scene, *, scored: bool = True) -> dict[str, Any]:
    """One video. A broken one (more than a third of its pairs fit no camera motion, or its last frame is more than 30
    grey levels from every clip the scene allows) has not moved, whatever it did."""
    pairs = camera_motion(video)
    lost = float(np.isnan(pairs[:, 0]).mean())
    dx, dy = np.nanmedian(pairs[:, :2], 0) if lost < 1 else (0.0, 0.0)
    nearest = nearest_clip(video, scene.videos)
    broken = lost > LOST_PAIRS or nearest.last_frame > FAR_FRAME
    return {
        "dx": round(float(dx), 3),
        "dy": round(float(dy), 3),
        "broken": broken,
        "moves": bool(not broken and np.hypot(dx, dy) >= MOVES),
        "nearest": round(nearest.distance, 2),
        "first_frame": round(min(first_frame_psnr(video, scene.videos[0, 0]), 60.0), 2),
        "flicker": round(flicker(video), 3),
        "score": round(motion_score(video).value, 1) if scored else None,
        "change": change(video, scene).tolist(),
    }


def change(video: np.ndarray, scene: Scene) -> np.ndarray:
    """What differs from the photo: every second frame less the photo, in grey, as means over 8x8 tiles."""
    gray = (video[1::2].astype(float) - scene.videos[0, 0]).mean(-1)
    tiles = reduce(gray, "f (h a) (w b) -> (f h w)", "mean", a=gray.shape[1] // 8, b=gray.shape[2] // 8)
    return np.round(tiles).astype(int)


def summarize(
    rows: list[dict[str, Any]], plain: list[dict[str, Any]], real: list[dict[str, Any]], law: Law
) -> dict[str, Any]:
    """One row of the table. `plain` and `real` are the same (scene, noise) under other methods. Every row has its
    `training_seed`, the place of its model among those of its variant."""
    moves = _by_place(rows, "moves")
    before = _by_place(plain, "moves")
    velocities: dict[Any, list[tuple[float, float]]] = {}
    for row in rows:
        velocities.setdefault((row["training_seed"], row["scene"]), []).append((row["dx"], row["dy"]))
    energy = [
        energy_distance_to_law(np.array(v), law.velocities, law.probabilities)
        for v in velocities.values()
        if len(v) > 1
    ]
    changes = [np.array([row["change"] for row in some], dtype=float) for some in (rows, real)]
    # Most real clips rest, so the median distance between two is 0; the root mean square sets the bandwidth for all.
    bandwidth = float(np.sqrt(2 * changes[1].var(0).sum()))
    return {
        "videos": len(rows),
        "moves": float(np.mean([row["moves"] for row in rows])),
        "by_seed": [
            float(np.mean([v for places in photos.values() for v in places.values()])) for photos in moves.values()
        ],
        "interval": resampled(moves, None),
        "more": float(np.mean([row["moves"] for row in rows]) - np.mean([row["moves"] for row in plain])),
        "more_interval": resampled(moves, before),
        "speed": float(np.mean([np.hypot(row["dx"], row["dy"]) * (not row["broken"]) for row in rows])),
        "energy": float(np.mean(energy)) if energy else float("nan"),
        "mmd": 1000 * mmd2(*changes, bandwidth=bandwidth) if rows is not real else float("nan"),
        **{
            name: float(np.mean([row[name] for row in rows if row[name] is not None]))
            for name in ("broken", "nearest", "first_frame", "flicker", "score", "seconds")
        },
    }


Places = dict[int, dict[str, dict[tuple[int, int], float]]]


def _by_place(rows: list[dict[str, Any]], name: str) -> Places:
    """Training seed -> photo -> (scene, noise) -> value."""
    places: Places = {}
    for row in rows:
        photos = places.setdefault(row["training_seed"], {})
        photos.setdefault(row["photo"], {})[row["scene"], row["noise"]] = float(row[name])
    return dict(sorted(places.items()))


def resampled(values: Places, minus: Places | None) -> list[float]:
    """95 % interval of the mean (of the difference, paired by training seed, scene and noise): training seeds are
    drawn, then photos, then the videos of each photo, for two crops of one photo are not two photos."""
    rng = np.random.default_rng(0)
    groups = [
        [
            np.array([v - (minus[seed][photo][place] if minus else 0) for place, v in places.items()])
            for photo, places in photos.items()
        ]
        for seed, photos in values.items()
    ]
    means = []
    for _ in range(RESAMPLES):
        drawn = []
        for seed in rng.integers(len(groups), size=len(groups)):
            photos = groups[seed]
            drawn += [rng.choice(photos[k], len(photos[k])) for k in rng.integers(len(photos), size=len(photos))]
        means.append(np.concatenate(drawn).mean())
    return [float(q) for q in np.quantile(means, [0.025, 0.975])]
