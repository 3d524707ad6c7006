"""The paper's metrics of a folder of videos: what `unleak evaluate` and `unleak.evaluate` do."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from unleak import __version__
from unleak.animate.record import versions
from unleak.data.atomic import check_writable
from unleak.data.decode_worker import ClipRequest, Decoding, Outcome, default_workers, read_clips
from unleak.data.folder import find_videos
from unleak.data.image import MediaError
from unleak.data.video import VideoClip
from unleak.measure.adapters.torch_fidelity import Frames, TorchFidelity
from unleak.measure.adapters.vbench import VBench
from unleak.measure.adapters.vbench_layout import vbench_layout
from unleak.measure.registry import metric_names, metrics
from unleak.study.evaluate.items import Item, match_images, match_prompts, match_targets
from unleak.study.evaluate.kept import Kept, check_out
from unleak.study.evaluate.networks import Networks
from unleak.study.evaluate.result import Evaluation
from unleak.study.evaluate.ucf101 import long_enough, shuffled
from unleak.study.evaluate.videos import UCF101, Protocol, Tools, measure_video, summarize
from unleak.study.listener import ALONE, Listener, Processes
from unleak.study.sweep import check_measurable

__all__ = ["Asked", "evaluate"]

Sources = str | Path | Sequence[str | Path]
MOST_REFUSED = 20
"""Videos that networks refuse, with none measured, before the run ends: the settings are wrong, not the videos."""


@dataclass(frozen=True)
class Asked:
    """What is to be measured and how; the arguments of `evaluate`, which says what they are."""

    videos: tuple[str | Path, ...]
    reference: tuple[str | Path, ...] = ()
    images: Path | None = None
    prompts: Path | None = None
    target_motion: str | float | int | Path | None = None
    preset: Literal["ucf101"] | None = None
    num_frames: int | None = None
    fps: float | int | None = None
    size: tuple[int, int] | None = None
    metrics: tuple[str, ...] | None = None
    networks: Networks = field(default_factory=Networks)
    export: Path | None = None

    @property
    def protocol(self) -> Protocol:
        """Return how videos are read: as the preset has it, except for what is given."""
        given = {"num_frames": self.num_frames, "fps": self.fps, "size": self.size}
        base = UCF101 if self.preset == "ucf101" else Protocol()
        return replace(base, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Plan:
    """An evaluation that was checked: what each process has to know."""

    items: list[Item]
    protocol: Protocol
    names: tuple[str, ...]
    settings: dict[str, Any]
    key: str
    """Digest of the settings: rows of another key are not taken up."""
    shorter: int
    """Real clips that are left out because they are too short."""
    bench: VBench | None


def evaluate(
    videos: Sources,
    *,
    reference: Sources = (),
    images: str | Path | None = None,
    prompts: str | Path | None = None,
    target_motion: str | float | int | Path | None = None,
    preset: Literal["ucf101"] | None = None,
    num_frames: int | None = None,
    fps: float | int | None = None,
    size: tuple[int, int] | None = None,
    metrics: Iterable[str] | None = None,
    networks: Networks | None = None,
    export: str | Path | None = None,
    out: str | Path = "out/evaluation",
    overwrite: bool = False,
    device: str | None = None,
    decoding: Decoding | None = None,
    listener: Listener | None = None,
    processes: Processes = ALONE,
    about: dict[str, Any] | None = None,
) -> Evaluation:
    """Measure videos: motion score, consistency, alignment and the rest, with intervals, and FVD and IS by networks.

    videos: files, folders or patterns. reference: real videos to compare with, given the same way.
    images: folder with the conditioning image of each video, by the name of the video.
    prompts: a list, JSON {name: prompt}, or a file of lines. target_motion: a motion score, or JSON {name: score}.
    preset: `ucf101`, the paper's protocol. num_frames, fps (Hz), size (height, width): how videos are read.
    metrics: names of `unleak.measure.registry`; None: the usual ones. Those that lack what they need are left out.
    networks: optical flow, features, FVD, IS and other packages; None: DIS and no networks.
    export: a new folder to lay the videos out in as VBench-I2V reads them, by their prompts.
    out: folder for the results; measured videos are kept there at once, so that the same call goes on after a stop.
    overwrite: delete what an earlier evaluation wrote to `out`.
    decoding: workers, seconds and memory for reading a video. about: further plain values for the record.

    A video that cannot be read or measured is named in `Evaluation.failed` and told to `listener`; the others are
    measured. Raises ValueError, before anything is measured, for what is missing or does not go together, and if no
    video can be measured. Needs `pip install 'unleak[evaluate]'`.

    With `processes`, the videos are shared out, and the result of the main process is that of all.
    """
    listener, out = listener or Listener(), Path(out)
    asked = Asked(
        _listed(videos), _listed(reference), _path(images), _path(prompts), target_motion, preset, num_frames, fps,
        size, None if metrics is None else tuple(metrics), networks or Networks(), _path(export),
    )  # fmt: skip
    plan = processes.from_main(lambda: _plan(asked, out, overwrite=overwrite, device=processes.device(device)))
    if plan.shorter:
        listener.note(f"{plan.shorter} real clips are too short for {plan.protocol.num_frames} frames; left out")
    place = processes.device(device)
    tools = asked.networks.tools(place)
    frames_judge = None
    if asked.networks.torch_fidelity is not None:
        frames_judge = TorchFidelity(asked.networks.torch_fidelity, device=place)
    decoding = decoding or Decoding(default_workers(processes.count))
    gathered = processes.gather(_measure(plan, tools, out, decoding, processes, listener))
    rows = {name: row for part, _ in gathered for name, row in part.items()}
    failed = [reason for _, part in gathered for reason in part]
    if not processes.is_main:
        return Evaluation({}, [], [], plan.names, {}, {})
    found = _found(plan, tools, frames_judge, rows, failed, about or {}, listener)
    found.save(out)
    if asked.export is not None:
        ours = [item for item, row in _in_order(plan, rows) if not row["reference"]]
        folder = vbench_layout(
            [item.path for item in ours],
            [item.prompt or "" for item in ours],
            asked.export,
            images=[item.image for item in ours],
        )
        listener.note(f"{folder}: {len(ours)} videos as VBench-I2V reads them")
    return found


def _listed(sources: Sources) -> tuple[str | Path, ...]:
    return (sources,) if isinstance(sources, str | Path) else tuple(sources)


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


# ---- before anything is measured -----------------------------------------------------------------------------------


def _plan(asked: Asked, out: Path, *, overwrite: bool, device: Any) -> Plan:
    """Check everything that can be checked without measuring."""
    if not asked.videos:
        raise ValueError("give --videos DIR, the videos to measure")
    found, real, protocol = find_videos(asked.videos), find_videos(asked.reference), asked.protocol
    asked.networks.check(references=bool(real))
    items = _items(asked, found)
    if asked.export is not None and asked.export.exists():
        raise ValueError(f"--export {asked.export} exists; choose another folder")
    shorter = 0
    if asked.preset == "ucf101":
        real, shorter = _real_clips(real, protocol)
        places = {path: k for k, path in enumerate(shuffled(found))}
        items.sort(key=lambda item: places[item.path])
    try:
        check_measurable()
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from error
    check_writable(out)
    names = metric_names("evaluate") if asked.metrics is None else asked.metrics
    if unknown := [name for name in names if name not in metrics()]:
        raise ValueError(f"metric {unknown[0]!r} is unknown; give some of {', '.join(metrics())}")
    settings = {"protocol": asdict(protocol), "metrics": list(names), **asked.networks.settings}
    asked.networks.check_packages()
    bench = asked.networks.bench(device)
    if bench is not None:
        prompts = [item.prompt or f"video {k}" for k, item in enumerate(items)]
        bench.check(prompts, [item.image for item in items])
    text = json.dumps([__version__, settings], sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    check_out(out, key, overwrite=overwrite)
    items += [Item(path, reference=True) for path in real]
    return Plan(items, protocol, names, settings, key, shorter, bench)


def _items(asked: Asked, found: list[Path]) -> list[Item]:
    stems = [path.stem for path in found]
    photos, texts = match_images(asked.images, found), match_prompts(asked.prompts, stems)
    targets = match_targets(asked.target_motion, stems)
    if asked.export is not None and texts is None:
        raise ValueError("--export names videos after their prompts: give --prompts FILE")
    return [
        Item(path, image=photos[k], prompt=None if texts is None else texts[k], target_motion=targets[k])
        for k, path in enumerate(found)
    ]


def _real_clips(videos: list[Path], protocol: Protocol) -> tuple[list[Path], int]:
    """Choose those of the protocol: as many as it compares with, of all categories, each long enough."""
    rate = protocol.rate(reference=True)
    assert rate is not None
    assert protocol.num_frames is not None
    found, shorter = long_enough(shuffled(videos), seconds=protocol.num_frames / rate, most=protocol.frechet_samples)
    if videos and not found:
        raise ValueError(f"--reference: none of {len(videos)} clips has {protocol.num_frames} frames at {rate:g} Hz")
    return found, shorter


# ---- measuring -----------------------------------------------------------------------------------------------------

Rows = dict[str, dict[str, Any]]


def _measure(
    plan: Plan, tools: Tools, out: Path, decoding: Decoding, processes: Processes, listener: Listener
) -> tuple[Rows, list[str]]:
    """Measure this process's share; its rows by the keys of their videos, and what could not be measured."""
    mine, rows, failed, refused = plan.items[processes.rank :: processes.count], Rows(), list[str](), 0
    done = 0

    def skip(reason: str) -> None:
        failed.append(reason)
        listener.failure(f"skipped {reason}")

    def advance() -> None:
        nonlocal done
        done += 1
        listener.progress(done, len(mine), "videos")

    with closing(Kept(out, plan.key, processes.rank)) as kept:
        listener.progress(0, len(mine), "videos")
        waiting = list[tuple[Item, str]]()
        for item in mine:
            try:
                name = item.key
            except OSError as error:
                skip(f"{error.filename}: {error.strerror}")
                advance()
                continue
            if name in kept.rows:
                rows[name] = kept.rows[name]
                advance()
            else:
                waiting.append((item, name))
        requests = (_request(item, plan.protocol) for item, _ in waiting)
        with closing(read_clips(requests, decoding=decoding)) as outcomes:
            for (item, name), outcome in zip(waiting, outcomes, strict=True):
                try:
                    row = _row(item, name, outcome, tools, plan.names)
                except MediaError as error:
                    skip(str(error))
                except (ValueError, OSError) as error:
                    refused += isinstance(error, ValueError)
                    skip(f"{item.path}: {error}")
                    if refused >= MOST_REFUSED and not rows:
                        raise ValueError(f"none of the first {refused} videos can be measured") from None
                else:
                    rows[name] = row
                    kept.add(row)
                advance()
    return rows, failed


def _request(item: Item, protocol: Protocol) -> ClipRequest:
    return ClipRequest(item.path, protocol.num_frames, protocol.rate(item.reference), protocol.size, as_is=True)


def _row(item: Item, name: str, outcome: Outcome, tools: Tools, names: Sequence[str]) -> dict[str, Any]:
    import cv2

    if isinstance(outcome, MediaError):
        raise outcome
    assert isinstance(outcome, VideoClip)
    try:
        measured = measure_video(item, outcome, tools, names)
    except cv2.error as error:
        h, w = outcome.frames.shape[1:3]
        raise ValueError(f"frames of {w}x{h} cannot be measured ({error.err})") from error
    return {"name": name, "file": str(item.path), "reference": item.reference, **measured}


# ---- together ------------------------------------------------------------------------------------------------------


def _in_order(plan: Plan, rows: Rows) -> list[tuple[Item, dict[str, Any]]]:
    """Return the measured videos in the order of the plan."""
    by_file = {(row["file"], row["reference"]): row for row in rows.values()}
    places = [(item, by_file.get((str(item.path), item.reference))) for item in plan.items]
    return [(item, row) for item, row in places if row is not None]


def _found(
    plan: Plan,
    tools: Tools,
    frames_judge: TorchFidelity | None,
    rows: Rows,
    failed: list[str],
    about: dict[str, Any],
    listener: Listener,
) -> Evaluation:
    """Put all numbers together. ValueError if no video was measured."""
    ordered = _in_order(plan, rows)
    ours, theirs = ([(item, row) for item, row in ordered if row["reference"] is which] for which in (False, True))
    if not ours:
        raise ValueError("none of the videos can be measured; see the reasons above")
    numbers, made_by = _packages(plan, frames_judge, ours, theirs, failed, listener)
    summary = summarize(
        [row for _, row in ours], [row for _, row in theirs], plan.protocol, plan.names, tools.samples
    ) | numbers  # fmt: skip
    estimators = {
        "flow": tools.estimator("flow"),
        "features": tools.estimator("features"),
        **{name: getattr(network, "name", "") for name, network in tools.samples.items()},
        **made_by,
    }
    record = {"settings": plan.settings, "versions": versions(), **about}
    return Evaluation(summary, [row for _, row in ordered], failed, plan.names, estimators, record)


def _packages(
    plan: Plan,
    frames_judge: TorchFidelity | None,
    ours: list[tuple[Item, dict[str, Any]]],
    theirs: list[tuple[Item, dict[str, Any]]],
    failed: list[str],
    listener: Listener,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Ask other packages about all videos: their numbers, and who made them. One may fail without the others."""
    found, made_by = dict[str, Any](), dict[str, str]()

    def ask(name: str, measure: Callable[[], dict[str, Any]]) -> None:
        try:
            numbers = measure()
        except (ValueError, RuntimeError) as error:
            failed.append(f"{name}: {error}")
            listener.failure(failed[-1])
        else:
            found.update(numbers)
            made_by.update(dict.fromkeys(numbers, name))

    if frames_judge is not None:
        judge, protocol = frames_judge, plan.protocol
        mine, real = (
            Frames(
                [(item.path, row["frames"], *row["size"]) for item, row in part],
                fps=protocol.rate(which),
                size=protocol.size,
            )
            for part, which in ((ours, False), (theirs, True))
        )
        ask(judge.name, lambda: judge(mine, real if theirs else None))
    if plan.bench is not None:
        bench = plan.bench
        prompts = [item.prompt or f"video {k}" for k, (item, _) in enumerate(ours)]
        paths, photos = [item.path for item, _ in ours], [item.image for item, _ in ours]
        ask(bench.name, lambda: bench(paths, prompts, photos))
    return found, made_by
