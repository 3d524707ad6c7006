"""`unleak stats`: moments of a model's latents over a folder of videos, for Analytic-Init."""

import glob
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unleak import __version__
from unleak.cli.options import DeviceOption, JsonOption, ModelOption, QuietOption, parse_size, refuse_empty
from unleak.cli.processes import Processes, launched, of_environment
from unleak.cli.terminal import Terminal

if TYPE_CHECKING:  # this module is imported for `unleak --help`, which needs none of these
    from unleak.data.decode_worker import Decoding
    from unleak.stats.estimate import Estimate
    from unleak.stats.gathered import Gathered
    from unleak.stats.shards import Shard
    from unleak.zoo.registry import ModelSpec


def stats(
    out: Annotated[Path, typer.Option(help="The file to write, FILE.safetensors; FILE.json says how it was made.")],
    videos: Annotated[list[str] | None, typer.Option(help="Folder, file or pattern of videos; repeatable.")] = None,
    merge: Annotated[list[str] | None, typer.Option(help="A file, or pattern of files, to add; repeatable.")] = None,
    model: ModelOption = "nano",
    num_frames: Annotated[int | None, typer.Option(min=1, max=10_000, help="Frames of a clip.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Width and height of a clip.")] = None,
    fps: Annotated[float | None, typer.Option(min=0.1, max=240, help="Frame rate of a clip.")] = None,
    clips_per_video: Annotated[int, typer.Option(min=1, help="Clips from each video, at random places.")] = 1,
    max_clips: Annotated[int | None, typer.Option(min=1, help="Take no more clips than this.")] = None,
    max_failures: Annotated[
        float, typer.Option(min=0, max=1, help="Share of unusable videos that is too much.")
    ] = 0.05,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips encoded at once.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Decides which clips are taken.")] = 0,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Take part I of N of the videos; --merge FILE.*-of-N.safetensors.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, max=256, help="Processes that decode; 0: this one, without limits.")
    ] = None,
    seconds_per_video: Annotated[float, typer.Option(help="Time to read a clip before its video is skipped.")] = 60.0,
    memory_per_worker: Annotated[float, typer.Option(metavar="GIB", help="Memory to decode with, in GiB.")] = 4.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE if it exists.")] = False,
    device: DeviceOption = None,
    dtype: Annotated[str | None, typer.Option(help="float32, float16 or bfloat16.")] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Gather the moments that --init analytic needs, from videos of any size, rate and length.

    A run that was stopped goes on with the same command. Under `accelerate launch -m unleak stats ...` the videos are
    shared out over the processes; where they cannot reach each other, --shard does that by hand. With --merge what
    earlier runs gathered is added; with --merge alone nothing is encoded.
    """
    with launched() as processes:
        terminal = Terminal(quiet or not processes.is_main, as_json)

        def check() -> Work:
            # What needs no torch comes first: a missing video is told at once.
            from unleak.data.decode_worker import Decoding, default_workers
            from unleak.data.folder import find_videos
            from unleak.stats.shards import Shard
            from unleak.zoo.registry import find_model

            refuse_empty(model=model, shard=shard)
            if not videos and not merge:
                raise ValueError("nothing to do; give --videos DIR, or --merge FILE twice")
            if out.suffix != ".safetensors":
                raise ValueError(f"--out {out}: give a name that ends in .safetensors")
            part = Shard.parse(shard) if shard else Shard()
            if part.count > 1 and (processes.count > 1 or merge or not videos):
                raise ValueError(f"--shard {shard}: for a single process with --videos, without --merge; leave it out")
            file = part.file(out)
            for path in (file, file.with_suffix(".json"), file.with_suffix(".progress")):
                if path.is_dir():
                    raise ValueError(f"{path} is a folder, where a file is to go; choose another --out")
            for path in (file, file.with_suffix(".json")):
                if path.exists() and not overwrite:
                    raise ValueError(f"{path} exists; give --overwrite, another --out, or --merge {file} to add to it")
            _check_progress(out, max(part.count, processes.count))
            local = of_environment("LOCAL_WORLD_SIZE")
            decoding = Decoding(
                default_workers(local) if workers is None else workers, seconds_per_video, memory_per_worker * 2**30
            )
            width, height = parse_size(size)
            found = find_videos(videos or [])
            spec = find_model(model)

            from unleak.animate.settings import Settings
            from unleak.data.atomic import check_writable
            from unleak.stats.gathered import Gathered, merged

            files = _files(merge or [])
            before = merged([Gathered.load(path) for path in files], max_failures=max_failures) if files else None
            settings: dict[str, Any] = {}
            if found:
                usual = Settings.for_model(spec, height=height, width=width, num_frames=num_frames)
                settings = {
                    "num_frames": usual.num_frames,
                    "height": usual.height,
                    "width": usual.width,
                    "fps": fps or usual.fps,
                    "clips_per_video": clips_per_video,
                    "max_clips": max_clips,
                    "max_failures": max_failures,
                    "batch_size": batch_size,
                    "seed": seed,
                }
                if None in (usual.num_frames, usual.height, usual.width):
                    raise ValueError(f"{spec.name} has no size of its own; give --num-frames and --size")
            check_writable(out.parent)
            return Work(file, found, ", ".join(videos or []), spec, settings, decoding, part, files, before)

        work = processes.from_main(check)
        outcomes = processes.gather(_gather(work, processes, device, dtype, terminal) if work.found else None)
        about = processes.from_main(lambda: _write(work, outcomes, max_failures, terminal))
        work.progress(processes).unlink(missing_ok=True)
        if processes.is_main:
            variance = about["isotropic_variance"]
            terminal.line(f"{work.file}: moments of {about['count']} clips, tr(Cov)/d = {variance:.4g}")
            terminal.json({"file": str(work.file), **about})
        processes.outlive_main()


@dataclass(frozen=True)
class Work:
    """What was asked, checked."""

    file: Path
    found: list[Path]
    source: str
    spec: "ModelSpec"
    settings: dict[str, Any]
    decoding: "Decoding"
    shard: "Shard"
    """Of one process; several cut the run themselves."""
    merge: list[Path]
    before: "Gathered | None"
    """The sum of `merge`."""

    def part(self, processes: Processes) -> "Shard":
        """What this process does of the run."""
        from unleak.stats.shards import Shard

        return self.shard if processes.count == 1 else Shard(processes.rank + 1, processes.count)

    def progress(self, processes: Processes) -> Path:
        """Where this process keeps how far it is."""
        file = self.file if processes.count == 1 else self.part(processes).file(self.file)
        return file.with_suffix(".progress")


def _files(patterns: list[str]) -> list[Path]:
    """The files to merge, each once."""
    files = list[Path]()
    for pattern in patterns:
        matches = sorted(glob.glob(pattern)) if glob.has_magic(pattern) and not Path(pattern).exists() else [pattern]
        if not matches:
            raise ValueError(f"--merge {pattern}: no such files")
        files += map(Path, matches)
    for k, file in enumerate(files):
        if file.resolve() in (other.resolve() for other in files[:k]):
            raise ValueError(f"--merge {file} is given twice, so its clips would count twice; give it once")
    return files


def _check_progress(out: Path, count: int) -> None:
    """Refuse to begin beside the progress of the same run in another number of processes."""
    kept = re.compile(re.escape(out.stem) + r"(?:\.\d+-of-(\d+))?\.progress")
    for path in sorted(out.parent.glob("*.progress")):
        match = kept.fullmatch(path.name)
        if match and int(match[1] or 1) != count:
            raise ValueError(
                f"{path} is of a run cut in {match[1] or 1}, this one is cut in {count}; give as many processes or "
                "shards to go on, or delete it to begin again"
            )


def _gather(
    work: Work, processes: Processes, device: str | None, dtype: str | None, terminal: Terminal
) -> "Estimate | ValueError | OSError":
    """What this process gathered, or what ended it."""
    from unleak.stats.estimate import estimate
    from unleak.zoo.hub import load

    part, progress = work.part(processes), work.progress(processes)
    if progress.exists():
        terminal.note(f"going on from {progress}")
    most, each = work.settings["max_clips"], work.settings["clips_per_video"]
    share = part.share(work.found[: most and -(-most // each)])
    with terminal.progress() as bar:
        task = bar.add_task("videos", total=len(share))

        def on_video(reason: str | None) -> None:
            bar.advance(task)
            if reason:
                terminal.failure(f"skipped {' '.join(reason.split())}")

        try:
            return estimate(
                load(work.spec, device=processes.device(device), dtype=dtype, only=("vae",)),
                work.found,
                **work.settings,
                model=work.spec.name,
                source=work.source,
                shard=part,
                decoding=work.decoding,
                progress=progress,
                beside=work.before,
                on_video=on_video,
            )
        except (ValueError, OSError) as error:
            return error


def _write(work: Work, outcomes: list[Any], max_failures: float, terminal: Terminal) -> dict[str, Any]:
    """Put together what all processes gathered, write it with its report, and return that."""
    from unleak.data.atomic import written_whole
    from unleak.data.image import MediaError
    from unleak.stats.gathered import merged

    for error in (outcome for outcome in outcomes if isinstance(outcome, Exception)):
        raise error
    estimates = [outcome for outcome in outcomes if outcome is not None]
    gathered = [work.before] if work.before else []
    gathered += [done.gathered for done in estimates]
    total = merged(gathered, max_failures=max_failures)
    moments = total.moments
    if moments.count == 0 and work.shard.count == 1:
        raise MediaError("none of the videos can be used; see the reasons above")
    shards = [part.shard for part in total.parts if part.shard.count > 1]
    if shards and work.shard.count == 1:
        there = ", ".join(map(str, shards))
        terminal.note(f"these are the shards {there} of a run; --merge {work.file} with the others when they are done")
    about: dict[str, Any] = {"unleak": __version__, "merged": [str(path) for path in work.merge]}
    if estimates:
        about |= {"model": work.spec.name, "videos": len(work.found), "shard": str(work.shard)}
        about |= {"clips": sum(done.moments.count or 0 for done in estimates), "settings": work.settings}
        skipped = [(video, reason) for done in estimates for video, reason in done.skipped.items()]
        about["skipped"] = [{"video": str(video), "reason": reason} for video, reason in skipped]
    about |= {"count": moments.count, "shape": list(moments.shape), "isotropic_variance": moments.isotropic_variance}
    about["parts"] = [part.record for part in total.parts]
    with written_whole(work.file.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        moments.save(work.file)
    return about
