"""`unleak evaluate`: the paper's metrics of a folder of videos."""

import csv
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from unleak import __version__
from unleak.cli.errors import WRONG_INPUT, describe_error, refuse_unmeasurable
from unleak.cli.options import JsonOption, QuietOption, command_line, parse_size, refuse_empty
from unleak.cli.placement import DeviceOption
from unleak.cli.processes import Processes, launched
from unleak.cli.terminal import Terminal

if TYPE_CHECKING:  # this module is imported for `unleak --help`, which needs none of these
    from unleak.measure.adapters.torch_fidelity import TorchFidelity
    from unleak.measure.adapters.vbench import VBench
    from unleak.study.evaluate.videos import Protocol, Tools

# What a command is really given; in a private module, and not the same one in every version of typer.
_Context: Any = typer.Context.__base__

RECORD, TABLE, ROWS = "evaluation.json", "evaluation.csv", "rows"


def evaluate(
    context: _Context,
    videos: Annotated[
        list[str] | None, typer.Option(help="Folder, file or pattern of videos to measure; repeatable.")
    ] = None,
    reference: Annotated[
        list[str] | None, typer.Option(help="Real videos to compare with, the same way; repeatable.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder with the photo of each video, by the video's name without its ending.")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A list as for `unleak generate`, JSON {name: prompt}, or lines."),
    ] = None,
    target_motion: Annotated[
        str | None, typer.Option(metavar="SCORE|FILE", help="Motion score asked for, or JSON {name: score}: MS-Err.")
    ] = None,
    preset: Annotated[
        Literal["ucf101"] | None, typer.Option(help="The paper's: 16 frames at 3 Hz, 2,048 and 10,000 samples.")
    ] = None,
    prepare: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="With the preset: write photos and a list for `unleak generate`; no more."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for evaluation.json and .csv; a stopped run goes on.")] = Path(
        "out/evaluation"
    ),
    num_frames: Annotated[int | None, typer.Option(min=2, max=10_000, help="Frames taken of each video.")] = None,
    fps: Annotated[float | None, typer.Option(min=0.1, max=240, help="Rate they are taken at.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Scale and crop to this size first.")] = None,
    flow: Annotated[str, typer.Option(help="dis, raft, or a file of RAFT's weights.")] = "dis",
    features: Annotated[
        str | None, typer.Option(help="CLIP or DINO: folder or Hub id, such as openai/clip-vit-base-patch32.")
    ] = None,
    i3d: Annotated[Path | None, typer.Option(metavar="FILE", help="i3d_torchscript.pt: FVD.")] = None,
    i3d_sha256: Annotated[
        str | None, typer.Option(help="Of another file in its place, a program; then the distance is not called FVD.")
    ] = None,
    c3d: Annotated[Path | None, typer.Option(metavar="FILE", help="C3D as torchscript, with --c3d-sha256: IS.")] = None,
    c3d_sha256: Annotated[str | None, typer.Option(help="Of that file: it is a program.")] = None,
    videomae: Annotated[str | None, typer.Option(help="VideoMAE: folder or Hub id; a Frechet distance.")] = None,
    cd_fvd: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL=FILE", help="i3d or videomae and its weights: a distance by cd-fvd; repeatable."),
    ] = None,
    torch_fidelity: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Inception's weights: FID, KID, ... of frames by torch-fidelity."),
    ] = None,
    vbench: Annotated[
        str | None,
        typer.Option(metavar="DIMENSION,...", help="dynamic_degree, i2v_subject, ... by vbench."),
    ] = None,
    vbench_python: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Python of the environment that has vbench; default: this one.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Lay the videos out as VBench-I2V reads them, by --prompts.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Forget what an earlier run measured.")] = False,
    device: DeviceOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> int:
    """Motion score, MS-Err, dynamic degree, consistency, alignment, flicker, warping error, FVD, IS, with intervals.

    Without --features consistency and alignment are SSIM, and said to be. FVD is of I3D and nothing else; numbers that
    cd-fvd, torch-fidelity or vbench made are called theirs. Videos that cannot be read are named and left out, and the
    exit status is 2. Under `accelerate launch -m unleak evaluate ...` the videos are shared out over the processes.
    """
    with launched() as processes:
        terminal = Terminal(quiet or not processes.is_main, as_json)

        def check() -> Work:
            from unleak.data.folder import find_videos

            refuse_empty(features=features, videomae=videomae, flow=flow, vbench=vbench)
            if not videos:
                raise ValueError("give --videos DIR, the videos to measure")
            width, height = parse_size(size)
            found, theirs = find_videos(videos), find_videos(reference or [])
            stems = [path.stem for path in found]
            packaged = _cd_fvd(cd_fvd or [])
            if (i3d or videomae or packaged) and not theirs:
                raise ValueError("a Frechet distance compares with real videos: give --reference DIR")
            if (c3d is None) != (c3d_sha256 is None):
                raise ValueError("give --c3d FILE and --c3d-sha256 together: the file is a program")
            if i3d_sha256 is not None and i3d is None:
                raise ValueError("--i3d-sha256 is of the file that --i3d names; give both")
            for file in (i3d, c3d):
                if file is not None and not file.is_file():
                    raise ValueError(f"{file}: no such file; give a torchscript file")
            if torch_fidelity is not None and not torch_fidelity.is_file():
                raise ValueError(f"{torch_fidelity}: no such file; give torch-fidelity's weights of Inception")
            if vbench_python is not None and vbench is None:
                raise ValueError("--vbench-python is for --vbench DIMENSION,...; give both")
            photos = _images(images, found)
            texts = _prompts(prompts, stems)
            targets = _targets(target_motion, stems)
            if export is not None:
                if texts is None:
                    raise ValueError("--export names videos after their prompts: give --prompts FILE")
                if export.exists():
                    raise ValueError(f"--export {export} exists; choose another folder")

            from unleak.measure.adapters.package import required, weights_digest
            from unleak.measure.extractors import I3D_SHA256, check_hash
            from unleak.study.evaluate.videos import UCF101, Protocol

            # What each process will find out for itself is told here once.
            for file, pinned in ((i3d, i3d_sha256 or I3D_SHA256), (c3d, c3d_sha256)):
                if file is not None and pinned is not None:
                    check_hash(file, pinned)

            protocol = UCF101 if preset == "ucf101" else Protocol()
            given: dict[str, Any] = {"num_frames": num_frames, "fps": fps}
            given["size"] = (height, width) if height and width else None
            protocol = replace(protocol, **{name: value for name, value in given.items() if value is not None})
            shorter = 0
            if preset == "ucf101":
                theirs, shorter = _real_clips(theirs, protocol)
            refuse_unmeasurable()
            from unleak.data.atomic import check_writable

            check_writable(out)
            jobs = [
                Job(path, False, photos[k], None if texts is None else texts[k], targets[k])
                for k, path in enumerate(found)
            ]
            if preset == "ucf101":
                from unleak.study.evaluate.ucf101 import shuffled

                places = {path: k for k, path in enumerate(shuffled(found))}
                jobs.sort(key=lambda job: places[job.path])
            jobs += [Job(path, True, None, None, None) for path in theirs]
            settings = {
                "protocol": asdict(protocol),
                "flow": flow,
                "features": features,
                "networks": {
                    "i3d": None if i3d is None else (i3d_sha256 or I3D_SHA256).lower(),
                    "c3d": c3d_sha256 and c3d_sha256.lower(),
                    "videomae": videomae,
                    "cd-fvd": {name: weights_digest(file) for name, file in packaged.items()},
                },
            }
            text = json.dumps([__version__, settings], sort_keys=True)
            if packaged:
                required("cdfvd.fvd", "cd-fvd")
            if torch_fidelity is not None:
                from unleak.measure.adapters.torch_fidelity import TorchFidelity

                TorchFidelity(torch_fidelity)
            bench = None
            if vbench is not None:
                from unleak.measure.adapters.vbench import VBench

                dimensions = [one.strip() for one in vbench.split(",") if one.strip()]
                bench = VBench(dimensions, python=vbench_python, device=str(processes.device(device)))
                named = texts or [f"video {k}" for k in range(len(found))]
                bench.check(named, [job.image for job in jobs if not job.reference])
            key = hashlib.sha256(text.encode()).hexdigest()[:16]
            work = Work(jobs, protocol, settings, key, packaged, shorter, bench)
            _check_out(out, key, overwrite=overwrite)
            return work

        if prepare is not None:
            made = processes.from_main(lambda: _prepare(context, prepare, reference or [], terminal))
            processes.outlive_main()
            return made
        work = processes.from_main(check)
        if work.shorter:
            terminal.note(f"{work.shorter} real clips are too short for {work.protocol.num_frames} frames; left out")
        place = processes.device(device)
        failures: list[str] = []
        tools = _tools(flow, features, i3d, i3d_sha256, c3d, c3d_sha256, videomae, work.packaged, place)
        fidelity = None
        if torch_fidelity is not None:
            from unleak.measure.adapters.torch_fidelity import TorchFidelity

            fidelity = TorchFidelity(torch_fidelity, device=place)
        rows, failed = _measure(work, tools, out, processes, terminal)
        gathered = processes.gather((rows, failed))
        if processes.is_main:
            everything = {name: row for part, _ in gathered for name, row in part.items()}
            failures = [reason for _, part in gathered for reason in part]
            more = _packages(work, everything, fidelity, failures, terminal)
            reproduce = command_line(context)
            record = _write(work, everything, failures, out, tools, more, reproduce, terminal)
            if export is not None:
                from unleak.measure.adapters.vbench_layout import vbench_layout

                ours = [job for job in work.jobs if not job.reference and job.name in everything]
                folder = vbench_layout(
                    [job.path for job in ours],
                    [job.prompt or "" for job in ours],
                    export,
                    images=[job.image for job in ours],
                )
                terminal.line(f"{folder}: {len(ours)} videos as VBench-I2V reads them")
            terminal.line(str(out / RECORD))
            terminal.json(record)
        processes.outlive_main()
        return WRONG_INPUT if failures else 0


@dataclass(frozen=True)
class Job:
    """A video to measure."""

    path: Path
    reference: bool
    image: Path | None
    prompt: str | None
    target_motion: float | None

    @property
    def name(self) -> str:
        """What it is known by; a file that changes is another."""
        stat = self.path.stat()
        about = [self.reference, str(self.path), stat.st_size, stat.st_mtime_ns, str(self.image), self.prompt]
        return hashlib.sha256(json.dumps([*about, self.target_motion]).encode(errors="surrogateescape")).hexdigest()[
            :16
        ]


@dataclass(frozen=True)
class Work:
    """What was asked, checked."""

    jobs: list[Job]
    protocol: "Protocol"
    settings: dict[str, Any]
    key: str
    packaged: dict[str, Path]
    """Networks of cd-fvd, and their weights."""
    shorter: int
    """Real clips that are left out for being too short."""
    vbench: "VBench | None"


def _prepare(context: _Context, folder: Path, reference: list[str], terminal: Terminal) -> int:
    """Photos and a list for `unleak generate`; the exit status."""
    from unleak.data.atomic import check_writable
    from unleak.data.folder import find_videos
    from unleak.study.evaluate.ucf101 import category, prepare, shuffled
    from unleak.study.evaluate.videos import UCF101

    if context.params["preset"] != "ucf101" or not reference:
        raise ValueError("--prepare goes with --preset ucf101 and --reference DIR of the dataset")
    spoken = {"prepare", "preset", "reference", "quiet", "as_json"}
    for option in context.command.params:
        value = context.params[option.name]
        if option.name not in spoken and value not in (None, False, [], (), option.get_default(context)):
            raise ValueError(f"--prepare writes photos and a list, and has no use for {option.opts[0]}; leave it out")
    chosen = shuffled(find_videos(reference))[: UCF101.inception_samples]
    category(chosen[0])
    check_writable(folder)
    failed = list[str]()

    def skip(reason: str) -> None:
        failed.append(reason)
        terminal.failure(f"skipped {reason}")

    with terminal.progress() as progress:
        task = progress.add_task("photos", total=len(chosen))
        made = prepare(chosen, folder, on_photo=lambda: progress.advance(task), on_skipped=skip)
    photos = len(chosen) - len(failed)
    terminal.note(f"{photos} photos; now: unleak generate {made} --out VIDEOS, and evaluate them with --prompts {made}")
    terminal.line(str(made))
    terminal.json({"list": str(made), "photos": photos, "failed": failed})
    return WRONG_INPUT if failed else 0


def _real_clips(videos: list[Path], protocol: "Protocol") -> tuple[list[Path], int]:
    """Those of the protocol: as many as it compares with, of all categories, each long enough."""
    from unleak.study.evaluate.ucf101 import long_enough, shuffled

    rate = protocol.fps or protocol.reference_fps
    assert rate is not None
    assert protocol.num_frames is not None
    found, shorter = long_enough(shuffled(videos), seconds=protocol.num_frames / rate, most=protocol.frechet_samples)
    if videos and not found:
        raise ValueError(f"--reference: none of {len(videos)} clips has {protocol.num_frames} frames at {rate:g} Hz")
    return found, shorter


def _cd_fvd(texts: Sequence[str]) -> dict[str, Path]:
    """`MODEL=FILE` each, by model."""
    from unleak.measure.adapters.cd_fvd import MODELS

    found = dict[str, Path]()
    for text in texts:
        model, equals, file = text.partition("=")
        if not equals or not file or model not in MODELS or model in found:
            raise ValueError(f"--cd-fvd {text}: give i3d=FILE or videomae=FILE, each once")
        found[model] = Path(file)
    return found


def _images(folder: Path | None, videos: Sequence[Path]) -> list[Path | None]:
    if folder is None:
        return [None] * len(videos)
    from unleak.data.folder import find_images

    by_stem = {path.stem: path for path in find_images([folder])}
    missing = [path for path in videos if path.stem not in by_stem]
    if missing:
        raise ValueError(f"--images {folder}: no photo called {missing[0].stem} for {missing[0]}; name them alike")
    return [by_stem[path.stem] for path in videos]


def _json_by_stem(option: str, file: Path, stems: Sequence[str]) -> list[Any] | None:
    """The values of a JSON object by name; None for a text that is no JSON object."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise ValueError(f"--{option} {file}: cannot be read as text ({type(error).__name__}); give a file") from error
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return None
    if not isinstance(found, dict):
        return None
    if missing := next((stem for stem in stems if stem not in found), None):
        raise ValueError(f"--{option} {file}: nothing for the video {missing}; give each its own")
    return [found[stem] for stem in stems]


def _prompts(file: Path | None, stems: Sequence[str]) -> list[str] | None:
    if file is None:
        return None
    from unleak.data.lists import LIST_SUFFIXES, read_list

    if file.suffix.lower() in LIST_SUFFIXES and file.is_file():
        by_name = {entry.name or entry.photo.stem: entry.prompt for entry in read_list(file)}
        if missing := next((stem for stem in stems if by_name.get(stem) is None), None):
            raise ValueError(f"--prompts {file}: no prompt for the video {missing}; its id is its name")
        return [by_name[stem] or "" for stem in stems]
    found = _json_by_stem("prompts", file, stems)
    if found is None:
        found = file.read_text(encoding="utf-8-sig").splitlines()
        if len(found) != len(stems):
            raise ValueError(f"--prompts {file}: {len(found)} lines for {len(stems)} videos; give a line for each")
    if not all(isinstance(one, str) for one in found):
        raise ValueError(f"--prompts {file}: prompts are texts")
    return found


def _targets(text: str | None, stems: Sequence[str]) -> list[float | None]:
    if text is None:
        return [None] * len(stems)
    try:
        values: list[Any] | None = [float(text)] * len(stems)
    except ValueError:
        if not Path(text).is_file():
            raise ValueError(f"--target-motion {text}: give a motion score, or a JSON file {{name: score}}") from None
        values = _json_by_stem("target-motion", Path(text), stems)
    if values is None or not all(isinstance(one, int | float) and 0 <= one < 1e9 for one in values):
        raise ValueError(f"--target-motion {text}: motion scores are numbers of 0 or more")
    return [float(one) for one in values]


def _check_out(out: Path, key: str, *, overwrite: bool) -> None:
    """Refuse results of other settings, and files of others."""
    there = {path.name for path in out.iterdir()} if out.is_dir() else set()
    own = {name for name in there if name in (RECORD, TABLE) or name.startswith(f"{ROWS}-")}
    if others := sorted(there - own):
        raise ValueError(f"{out} holds files of others ({others[0]}); choose another --out")
    kept = {name.split("-")[1] for name in own if name.startswith(f"{ROWS}-")}
    if overwrite:
        for name in own:
            (out / name).unlink()
    elif kept - {key}:
        raise ValueError(f"{out} holds what other settings gave; give --overwrite or another --out")


def _tools(
    flow: str,
    features: str | None,
    i3d: Path | None,
    i3d_sha256: str | None,
    c3d: Path | None,
    c3d_sha256: str | None,
    videomae: str | None,
    packaged: dict[str, Path],
    device: Any,
) -> "Tools":
    from unleak.measure import extractors
    from unleak.measure.motion import DIS
    from unleak.study.evaluate.videos import Tools

    estimator: Any
    if flow == "dis":
        estimator = DIS()
    else:
        from unleak.measure.raft import Raft

        try:
            estimator = Raft(None if flow == "raft" else flow, device=device)
        except ModuleNotFoundError as error:
            raise ValueError(str(error)) from error
    networks: dict[str, Any] = {}
    if i3d is not None:
        wanted = (i3d_sha256 or extractors.I3D_SHA256).lower()
        network, pinned = extractors.i3d(i3d, sha256=wanted, device=device), wanted == extractors.I3D_SHA256
        networks["FVD" if pinned else f"Frechet distance by {network.name}"] = network
    if videomae is not None:
        networks["VideoMAE Frechet distance"] = extractors.VideoMAE(videomae, device=device)
    if c3d is not None:
        assert c3d_sha256 is not None
        networks["IS"] = extractors.TorchScript(c3d, sha256=c3d_sha256, device=device)
    if packaged:
        from unleak.measure.adapters.cd_fvd import CDFVD, MODELS

        networks |= {MODELS[model]: CDFVD(model, file, device=device) for model, file in packaged.items()}
    seen = None if features is None else extractors.ImageFeatures(features, device=device)
    return Tools(estimator, seen, networks)


def _measure(
    work: Work, tools: "Tools", out: Path, processes: Processes, terminal: Terminal
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The rows of this process's share, by name, those of an earlier run among them; and what could not be read."""
    from unleak.data.image import MediaError
    from unleak.study.evaluate.videos import measure_video

    out.mkdir(parents=True, exist_ok=True)
    done: dict[str, dict[str, Any]] = {}
    for path in sorted(out.glob(f"{ROWS}-{work.key}-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # a run that was killed while it wrote
                continue
            done[row["name"]] = row
    mine, rows, failed = work.jobs[processes.rank :: processes.count], dict[str, dict[str, Any]](), list[str]()
    with (
        (out / f"{ROWS}-{work.key}-{processes.rank}.jsonl").open("a", encoding="utf-8") as file,
        terminal.progress() as progress,
    ):
        task = progress.add_task("videos", total=len(mine))
        file.write("\n")  # after half a line, if that is how an earlier run ended
        for job in mine:
            if (name := job.name) not in done:
                try:
                    measured = measure_video(
                        job.path,
                        work.protocol,
                        tools,
                        image=job.image,
                        prompt=job.prompt,
                        target_motion=job.target_motion,
                        reference=job.reference,
                    )
                except (MediaError, OSError) as error:
                    failed.append(describe_error(error))
                    terminal.failure(f"skipped {failed[-1]}")
                    progress.advance(task)
                    continue
                done[name] = {"name": name, "file": str(job.path), "reference": job.reference, **measured}
                file.write(json.dumps(done[name]) + "\n")
                file.flush()
            rows[name] = done[name]
            progress.advance(task)
    return rows, failed


def _packages(
    work: Work,
    rows: dict[str, dict[str, Any]],
    fidelity: "TorchFidelity | None",
    failures: list[str],
    terminal: Terminal,
) -> tuple[dict[str, Any], dict[str, str]]:
    """What other packages say of all videos together, and who says it; one that fails is no loss to the others."""
    found, names = dict[str, Any](), dict[str, str]()

    def ask(name: str, measure: Callable[[], dict[str, Any]]) -> None:
        try:
            measured = measure()
        except (ValueError, RuntimeError) as error:
            failures.append(f"{name}: {describe_error(error)}")
            terminal.failure(failures[-1])
        else:
            found.update(measured)
            names.update(dict.fromkeys(measured, name))

    ours, theirs = (
        [(job, rows[job.name]) for job in work.jobs if job.reference is which and job.name in rows]
        for which in (False, True)
    )
    if fidelity is not None and ours:
        from unleak.measure.adapters.torch_fidelity import Frames

        protocol = work.protocol
        mine, real = (
            Frames([(job.path, row["frames"], *row["size"]) for job, row in part], fps=fps, size=protocol.size)
            for part, fps in ((ours, protocol.fps), (theirs, protocol.fps or protocol.reference_fps))
        )
        network = fidelity
        ask(network.name, lambda: network(mine, real if theirs else None))
    if work.vbench is not None and ours:
        prompts = [job.prompt or f"video {k}" for k, (job, _) in enumerate(ours)]
        bench, paths, photos = work.vbench, [job.path for job, _ in ours], [job.image for job, _ in ours]
        ask(bench.name, lambda: bench(paths, prompts, photos))
    return found, names


def _write(
    work: Work,
    rows: dict[str, dict[str, Any]],
    failed: list[str],
    out: Path,
    tools: "Tools",
    packages: tuple[dict[str, Any], dict[str, str]],
    reproduce: str,
    terminal: Terminal,
) -> dict[str, Any]:
    from unleak.data.atomic import written_whole
    from unleak.study.evaluate.videos import METRICS, summarize
    from unleak.study.sweep import versions

    ordered = [rows[name] for job in work.jobs if (name := job.name) in rows]
    ours, theirs = ([row for row in ordered if row["reference"] is which] for which in (False, True))
    if not ours:
        raise ValueError("none of the videos can be measured; see the reasons above")
    summary = summarize(ours, theirs, work.protocol, tools.samples) | packages[0]
    likeness = "SSIM: no --features were given" if tools.features is None else f"cosine of {tools.features.name}"
    record = {
        "unleak": __version__,
        "summary": summary,
        "videos": len(ours),
        "references": len(theirs),
        "failed": failed,
        "settings": work.settings,
        "estimators": {
            "flow": tools.flow.name,
            "consistency and alignment": likeness,
            **{name: getattr(network, "name", "") for name, network in tools.samples.items()},
            **packages[1],
        },
        "reproduce": reproduce,
        "versions": versions(),
        "rows": [{name: value for name, value in row.items() if name != "features"} for row in ordered],
    }
    with written_whole(out / RECORD) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    with written_whole(out / TABLE) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        columns = [name for name in METRICS if any(row.get(name) is not None for row in ours)]
        writer = csv.writer(file)
        writer.writerow(["file", *columns])
        for row in ours:
            name = row["file"].encode("utf-8", "backslashreplace").decode()
            writer.writerow([name, *("" if row.get(column) is None else row[column] for column in columns)])
    for name, mean in summary.items():
        bounds = "" if mean["low"] is None else f" ({mean['low']:.4g} to {mean['high']:.4g})"
        label = METRICS.get(name, name.replace("_", " "))
        if name in ("temporal_consistency", "image_alignment"):
            label += f" [{likeness}]"
        elif name == "dynamic_degree":
            label += f" [{tools.flow.name}]"
        elif name in packages[1]:
            label += f" [{packages[1][name]}]"
        note = f"; {mean['note']}" if mean.get("note") else ""
        terminal.line(f"{label}: {mean['value']:.4g}{bounds}, {mean['groups']} {mean.get('of', 'videos')}{note}")
    return record
