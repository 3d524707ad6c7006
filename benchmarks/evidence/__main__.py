"""What each strategy does on known motion: the README's six rows; docs/evidence.md has everything.

    python -m benchmarks.evidence PHOTOS [--quick] [--clips N] [--seeds N] [--worker I/N] [--out FOLDER]
    python -m benchmarks.evidence report [--out FOLDER] [--write REPOSITORY]

PHOTOS is the test split that recipes/nano/photos.py writes; protocol.yaml says what is measured. Every video is
measured and forgotten, its numbers are kept in OUT as lines of JSON, and all methods advance together: a stopped run
goes on, a longer one adds to a shorter one, several workers share the clips, and `report` can be asked at any time.
"""

import argparse
import json
import time
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks.evidence.measures import measure, summarize
from benchmarks.evidence.methods import Job, Make, Model, compared, equal_evaluations, knob
from benchmarks.evidence.report import write_report
from benchmarks.evidence.scenes import Law, Scenes

PROTOCOL = Path(__file__).with_name("protocol.yaml")
BATCH = 12


class Rows:
    """Measured videos, one JSON line each, one file for each worker."""

    def __init__(self, folder: Path, kind: str, worker: int):
        self.folder, self.kind, self.file = folder, kind, folder / f"{kind}-{worker}.jsonl"

    def read(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for path in sorted(self.folder.glob(f"{self.kind}-*.jsonl")) for line in path.open()]
        return list({place_of(row): row for row in lines}.values())

    def add(self, rows: list[dict[str, Any]]) -> None:
        with self.file.open("a") as file:
            file.write("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))


def place_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("method", "model", "scene", "noise"))


class Planned(NamedTuple):
    """Something to measure on the first `clips` scenes of a split."""

    method: str
    model: str
    make: Make
    clips: int
    noises: int


def measured(make: Make, jobs: Sequence[Job], **labels: Any) -> list[dict[str, Any]]:
    began = time.monotonic()
    videos = make(jobs)
    seconds = round((time.monotonic() - began) / len(jobs), 3)
    return [
        {
            **labels, "photo": scene.photo, "scene": scene.index, "noise": noise, "seconds": seconds,
            **measure(video, scene, scored=noise == 0),  # optical flow takes most of the time
        }
        for (scene, noise), video in zip(jobs, videos, strict=True)
    ]  # fmt: skip


def advance(methods: list[Planned], scenes: Scenes, store: Rows, worker: int, workers: int) -> None:
    """Measure what is not measured yet, all methods on some clips, then all on the next."""
    clips, noises = (max(column) for column in zip(*((m.clips, m.noises) for m in methods), strict=True))
    at_a_time = max(1, BATCH // noises)
    for first in range(worker * at_a_time, clips, workers * at_a_time):
        began, done = time.monotonic(), set(map(place_of, store.read()))
        for method, model, make, upto, noises in methods:
            places = [(i, j) for i in range(first, min(first + at_a_time, upto)) for j in range(noises)]
            jobs = [(scenes[i], j) for i, j in places if (method, model, i, j) not in done]
            if jobs:
                store.add(measured(make, jobs, method=method, model=model))
        print(f"{store.kind}: from clip {first}, {time.monotonic() - began:.0f} s", flush=True)


def tuning(protocol: dict[str, Any], model: str, models: dict[str, Model]) -> list[Planned]:
    return [
        Planned(f"{name} {json.dumps(value)}", model, partial(models[model].animate, **knob(name, value)),
                protocol["validation_clips"], protocol["noises"])
        for name, values in protocol["knobs"].items()
        for value in values
    ]  # fmt: skip


def tried(protocol: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Knob -> value (as JSON) -> what it gave on the validation photos."""
    methods: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        methods.setdefault(row["method"], []).append(row | {"training_seed": 0})
    law = Law.of(protocol)
    return {
        name: {
            json.dumps(value): summarize(some, some, some, law)
            for value in values
            if (some := methods.get(f"{name} {json.dumps(value)}"))
        }
        for name, values in protocol["knobs"].items()
    }


def chosen_of(found: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """The value of every knob with the least energy distance."""
    return {
        name: json.loads(min(results, key=lambda value: results[value]["energy"])) for name, results in found.items()
    }


def plan(protocol: dict[str, Any], chosen: dict[str, Any], models: dict[str, Model]) -> list[Planned]:
    """Everything that is measured on the test photos."""
    naive, best = protocol["models"]["naive"], float(chosen["start"])
    rows: list[Planned] = []

    def add(method: str, model: str, make: Make) -> None:
        rows.append(Planned(method, model, make, protocol["clips"], protocol["noises"]))

    for method, of in compared(protocol, chosen).items():
        sampled = not method.startswith(("real", "oracle"))
        for name in naive if sampled else naive[:1]:
            add(method, name, of(models[name]))
    steps = equal_evaluations(models[naive[0]], best)
    for name in naive:
        cut = partial(models[name].animate, start=f"sigma={best}", mode="truncate", steps=steps)
        add(f"start {best:g}, truncate, {protocol['steps']} evaluations", name, cut)
    for name in protocol["models"]["timenoise"]:
        animate = models[name].animate
        add("timenoise: plain", name, animate)
        add("timenoise: guidance 1", name, partial(animate, guidance="1:1"))
        add(f"timenoise: start {best:g}", name, partial(animate, start=f"sigma={best}"))
        add(f"timenoise: start {best:g}, analytic", name, partial(animate, start=f"sigma={best}", init="analytic"))
    again, other = protocol["restart"], protocol["models"]["timenoise"][0]
    who = {"model": naive[0], "model without its image": naive[0], "oracle": naive[0], "timenoise": other}
    for kind, at_once in (("restart", False), ("one step", True)):
        for sigma, (label, name) in product(again["sigmas"], who.items()):
            make = partial(models[name].restarted, sigma=float(sigma), who=label, at_once=at_once)
            clips = min(again["clips"], protocol["clips"])
            rows.append(Planned(f"{kind} {sigma}: {label}", name, make, clips, again["noises"]))
    return rows


def there(name: str) -> bool:
    """Whether a model can be measured: it is shipped, or has been trained here."""
    if "/" not in name or Path(name).is_dir():
        return True
    print(f"{name} is not there, so one training seed less: `make nano-seeds` trains it")
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of the held-out photos, or `report`")
    parser.add_argument("--quick", action="store_true", help="the protocol's quick size")
    parser.add_argument("--clips", type=int, help="stop after so many; the protocol's number by default")
    parser.add_argument("--seeds", type=int, help="only the first so many training seeds of the protocol's models")
    parser.add_argument("--worker", default="0/1", help="I/N: every N-th batch of clips from the I-th")
    parser.add_argument("--out", type=Path, default=Path("out/evidence"))
    parser.add_argument(
        "--write", type=Path, help="put the tables into README.md and docs/evidence.md of this repository"
    )
    arguments = parser.parse_args()
    protocol = yaml.safe_load(PROTOCOL.read_text())
    if arguments.quick:
        protocol |= protocol["quick"]
    protocol["clips"] = arguments.clips or protocol["clips"]
    protocol["models"] = {
        variant: list(filter(there, names[: arguments.seeds])) for variant, names in protocol["models"].items()
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    worker, workers = map(int, arguments.worker.split("/"))
    trials, tests = (Rows(arguments.out, kind, worker) for kind in ("trials", "tests"))
    if str(arguments.photos) != "report":
        models = {name: Model(name, protocol) for names in protocol["models"].values() for name in names}
        split = Scenes(protocol, arguments.photos, "validation")
        methods = tuning(protocol, protocol["models"]["naive"][0], models)
        advance(methods, split, trials, worker, workers)
        advance(methods, split, trials, 0, 1)  # what another worker has not come to
        chosen = chosen_of(tried(protocol, trials.read()))
        split = Scenes(protocol, arguments.photos, "test")
        advance(plan(protocol, chosen, models), split, tests, worker, workers)
    write_report(protocol, tests.read(), tried(protocol, trials.read()), arguments.out, arguments.write)


if __name__ == "__main__":
    main()
