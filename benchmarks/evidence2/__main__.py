"""What each method does on known motion, for nano 2: six rows for the README, everything else in docs/evidence.md.

    python -m benchmarks.evidence2 PHOTOS [--quick] [--worker I/N] [--out FOLDER]
    python -m benchmarks.evidence2 report [--quick] [--out FOLDER] [--write]

PHOTOS is a folder of photos that no training saw; protocol.yaml says what is measured. A video is measured and
forgotten, its numbers are kept in OUT at once: the same command goes on after a stop, several workers share the clips,
and `report` can be asked at any time. `--write` puts the tables and the plot into README.md and docs/.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.evidence2.animate import Animator
from benchmarks.evidence2.report import write
from benchmarks.evidence2.scenes import Scene, Scenes
from benchmarks.evidence2.videos import measure

PROTOCOL = Path(__file__).with_name("protocol.yaml")


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", help="a folder of held-out photos, or the word report")
    parser.add_argument("--quick", action="store_true", help="the protocol's quick size")
    parser.add_argument("--protocol", type=Path, default=PROTOCOL)
    parser.add_argument("--worker", default="0/1", help="I/N: every N-th clip from the I-th on")
    parser.add_argument("--out", type=Path, default=Path("out/evidence2"))
    parser.add_argument("--write", action="store_true", help="write README.md, docs/evidence.md and the plot")
    options = parser.parse_args(words)
    protocol = yaml.safe_load(options.protocol.read_text())
    if options.quick:
        protocol |= protocol["quick"]
    options.out.mkdir(parents=True, exist_ok=True)
    if options.photos != "report":
        worker, workers = map(int, options.worker.split("/"))
        run(protocol, Path(options.photos), options.out / f"rows-{worker}.jsonl", worker, workers)
    write(protocol, rows_in(options.out), options.out, into=Path() if options.write else None)


def asked(protocol: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], int]]:
    """Every method and every point of the curve: its name, what it asks for, and on how many clips."""
    yield "real clips", {"yardstick": "real"}, protocol["clips"]
    yield "oracle", {"yardstick": "oracle"}, protocol["clips"]
    for name, what in protocol["methods"].items():
        yield name, what, protocol["clips"]
    for name, points in protocol["curve"].items():
        for place, what in enumerate(points):
            yield f"curve {name} {place}", what, protocol["curve_clips"]


def run(protocol: dict[str, Any], photos: Path, file: Path, worker: int, workers: int) -> None:
    """Measure what is not measured yet: all methods on one clip, then all on the next."""
    models = {kind: [name for name in names if there(name)] for kind, names in protocol["models"].items()}
    animators: dict[str, Animator] = {}
    done = {place_of(row) for row in rows_in(file.parent)}
    scenes: Scenes | None = None
    with file.open("a") as lines:
        for clip in range(worker, protocol["clips"], workers):
            began = time.monotonic()
            for method, what, clips in asked(protocol):
                if clip >= clips:
                    continue
                names = models[what.get("model", "naive")]
                for seed, name in enumerate(names[:1] if what.get("yardstick") == "real" else names):
                    animator = animators.setdefault(name, Animator(name, protocol))
                    scenes = scenes or Scenes(photos, protocol, animator.side)
                    for noise in range(protocol["noises"]):
                        if (method, seed, clip, noise) not in done:
                            row = measured(animator, scenes[clip], what, noise, protocol)
                            row |= {"method": method, "training_seed": seed, "clip": clip, "noise": noise}
                            lines.write(json.dumps(row) + "\n")
                            lines.flush()
            print(f"clip {clip}: {time.monotonic() - began:.0f} s", flush=True)


def measured(animator: Animator, scene: Scene, what: dict[str, Any], noise: int, protocol: dict[str, Any]) -> Any:
    began = time.process_time()
    frames = animator.video(scene, what, noise)
    seconds = time.process_time() - began
    return measure(frames, scene, protocol) | {"photo": scene.photo, "seconds": round(seconds, 2)}


def rows_in(folder: Path) -> list[dict[str, Any]]:
    found = {}
    for path in sorted(folder.glob("rows-*.jsonl")):
        for line in path.read_text().split("\n"):
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # the end of a run that was killed
                continue
            found[place_of(row)] = row
    return list(found.values())


def place_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("method", "training_seed", "clip", "noise"))


def there(name: str) -> bool:
    """Whether a model can be measured: it is shipped, or it was trained here."""
    if "/" not in name or Path(name).is_dir():
        return True
    print(f"{name} is not there: one training seed less")
    return False


if __name__ == "__main__":
    main()
