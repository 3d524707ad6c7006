"""Numbers of one video, and of a method's videos together."""

from typing import Any

import numpy as np
from einops import reduce

from benchmarks.evidence.distribution import energy_distance_to_law, mmd2
from benchmarks.evidence.scenes import Law, Scene
from unleak.measure.fidelity import first_frame_psnr, flicker, nearest_clip
from unleak.measure.motion import camera_motion, motion_score

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
    `training_seed`, the place of its model among those of its variant. Numbers are means over the training seeds of
    what each gave: one that was measured on fewer videos counts as much."""
    # Most real clips rest, so the median distance between two is 0; the root mean square sets the bandwidth for all.
    # The committed rows leave the changes out, for their size; such rows give no MMD.
    known = all("change" in row for row in (*rows, *real))
    bandwidth = float(np.sqrt(2 * _changes(real).var(0).sum())) if known else None
    seeds = _grouped(rows, "training_seed")
    each = [_of_one_seed(some, [] if rows is real else real, law, bandwidth) for some in seeds.values()]
    moves, before = _by_place(rows, "moves"), _by_place(plain, "moves")
    return {name: float(np.mean([one[name] for one in each])) for name in each[0]} | {
        "videos": len(rows),
        "by_seed": [one["moves"] for one in each],
        "interval": resampled(moves, None),
        "more": float(
            np.mean([np.mean(np.concatenate(_of_photos(photos, before[seed]))) for seed, photos in moves.items()])
        ),
        "more_interval": resampled(moves, before),
    }


def _of_one_seed(
    rows: list[dict[str, Any]], real: list[dict[str, Any]], law: Law, bandwidth: float | None
) -> dict[str, float]:
    velocities = [
        np.array([(row["dx"], row["dy"]) for row in some]) for some in _grouped(rows, "scene").values() if len(some) > 1
    ]
    energy = [energy_distance_to_law(v, law.velocities, law.probabilities) for v in velocities]
    places = {(row["scene"], row["noise"]) for row in rows}
    same = [row for row in real if (row["scene"], row["noise"]) in places]
    return {
        "speed": float(np.mean([np.hypot(row["dx"], row["dy"]) * (not row["broken"]) for row in rows])),
        "energy": float(np.mean(energy)) if energy else float("nan"),
        "mmd": 1000 * mmd2(_changes(rows), _changes(same), bandwidth=bandwidth)
        if same and bandwidth is not None
        else float("nan"),
        **{
            name: float(np.mean([row[name] for row in rows if row[name] is not None]))
            for name in ("moves", "broken", "nearest", "first_frame", "flicker", "score", "seconds")
        },
    }


def _changes(rows: list[dict[str, Any]]) -> np.ndarray:
    return np.array([row["change"] for row in rows], dtype=float)


def _grouped(rows: list[dict[str, Any]], key: str) -> dict[Any, list[dict[str, Any]]]:
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return dict(sorted(groups.items()))


Photos = dict[str, dict[tuple[int, int], float]]


def _by_place(rows: list[dict[str, Any]], name: str) -> dict[int, Photos]:
    """Training seed -> photo -> (scene, noise) -> value."""
    return {
        seed: {
            photo: {(row["scene"], row["noise"]): float(row[name]) for row in some}
            for photo, some in _grouped(of_seed, "photo").items()
        }
        for seed, of_seed in _grouped(rows, "training_seed").items()
    }


def _of_photos(photos: Photos, minus: Photos | None) -> list[np.ndarray]:
    """The values of each photo, less the same videos' in `minus`."""
    return [
        np.array([v - (minus[photo][place] if minus else 0) for place, v in places.items()])
        for photo, places in photos.items()
    ]


def resampled(values: dict[int, Photos], minus: dict[int, Photos] | None) -> list[float]:
    """95 % interval of the mean (of the difference, paired by training seed, scene and noise): training seeds are
    drawn, then photos, then the videos of each photo, for two crops of one photo are not two photos."""
    rng = np.random.default_rng(0)
    seeds = [_of_photos(photos, minus[seed] if minus else None) for seed, photos in values.items()]
    means = []
    for _ in range(RESAMPLES):
        drawn = []
        for seed in rng.integers(len(seeds), size=len(seeds)):
            photos = seeds[seed]
            again = [rng.choice(photos[k], len(photos[k])) for k in rng.integers(len(photos), size=len(photos))]
            drawn.append(np.concatenate(again).mean())
        means.append(np.mean(drawn))
    return [float(q) for q in np.quantile(means, [0.025, 0.975])]
