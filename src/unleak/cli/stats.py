"""`unleak stats`: moments of a model's latents over a folder of videos, for Analytic-Init."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from unleak.cli.options import BASIC, MEMORY, MODEL, OUTPUT, Group, command, number, option, to_size, to_text, whole
from unleak.cli.processes import Processes, launched, of_environment
from unleak.cli.studies import Spoken, listening
from unleak.cli.terminal import Terminal

if TYPE_CHECKING:  # this module is imported for `unleak --help`, which needs none of these
    from unleak.stats.estimate import Estimate
    from unleak.stats.run import Run


@dataclass(frozen=True)
class Gathering(Group):
    """What is gathered, and from what."""

    panel = BASIC

    out: Annotated[Path, option("FILE", "FILE.safetensors to write; FILE.json says how it was made.", panel=OUTPUT)]
    videos: Annotated[
        list[str] | None, option("SOURCE", "Folder, file or pattern of videos; repeatable, 100 clips or more.")
    ] = None
    merge: Annotated[list[str] | None, option("FILE", "A file, or pattern of files, to add; repeatable.")] = None
    model: Annotated[str, option("NAME", "A name that `unleak models` lists, a folder or a Hub id.", parse=to_text)] = (
        "nano"
    )
    num_frames: Annotated[int | None, option("N", "Frames of a clip.", parse=whole(1, 10_000), panel=MODEL)] = None
    size: Annotated[
        "tuple[int, int] | None", option("WxH", "Width and height of a clip.", parse=to_size, panel=MODEL)
    ] = None
    fps: Annotated[float | None, option("HZ", "Frame rate of a clip.", parse=number(0.1, 240), panel=MODEL)] = None
    clips_per_video: Annotated[int, option("N", "Clips from each video, at random places.", parse=whole(1, 10_000))] = 1
    max_clips: Annotated[int | None, option("N", "Take no more clips than this.", parse=whole(1, 10**9))] = None
    max_failures: Annotated[
        float, option("SHARE", "Share of unusable videos that is too much.", parse=number(0, 1))
    ] = 0.05
    batch_size: Annotated[int, option("N", "Clips encoded at once.", parse=whole(1, 10_000), panel=MEMORY)] = 1
    seed: Annotated[int, option("N", "Decides which clips are taken.", parse=whole(0, 2**64 - 1))] = 0
    shard: Annotated[
        str | None, option("I/N", "Take part I of N of the videos; --merge FILE.*-of-N.safetensors.", parse=to_text)
    ] = None
    workers: Annotated[
        int | None,
        option("N", "Processes that decode; 0: this one, without limits.", parse=whole(0, 256), panel=MEMORY),
    ] = None
    seconds_per_video: Annotated[float, option("S", "Time to read a clip before its video is skipped.")] = 60.0
    memory_per_worker: Annotated[float, option("GIB", "Memory to decode with, in GiB.", panel=MEMORY)] = 4.0
    overwrite: Annotated[bool, option("", "Replace FILE if it exists.", "--overwrite", panel=OUTPUT)] = False
    device: Annotated[str | None, option("NAME", "cpu, cuda, cuda:1 or mps.", panel=MEMORY)] = None
    dtype: Annotated[str | None, option("NAME", "float32, float16 or bfloat16.", panel=MEMORY)] = None


@command
def stats(gathering: Gathering, output: Spoken) -> None:
    """Gather the moments that --init analytic needs, from videos of any size, rate and length.

    A run that was stopped goes on with the same command. Under `accelerate launch -m unleak stats ...` the videos are
    shared out over the processes; where they cannot reach each other, --shard does that by hand. With --merge, what
    earlier runs gathered is added; with --merge alone, nothing is encoded.
    """
    with launched() as processes:
        terminal = output.terminal(quiet=not processes.is_main)
        run = processes.from_main(lambda: _checked(gathering, processes))
        part = run.of(processes.rank, processes.count)
        outcomes = processes.gather(_gathered(part, gathering, processes, terminal) if run.videos else None)
        about = processes.from_main(lambda: _written(run, outcomes, terminal))
        part.progress.unlink(missing_ok=True)
        if processes.is_main:
            variance = about["isotropic_variance"]
            terminal.line(f"{run.file}: moments of {about['count']} clips, tr(Cov)/d = {variance:.4g}")
            terminal.json({"file": str(run.file), **about})
        processes.outlive_main()


def _checked(asked: Gathering, processes: Processes) -> "Run":
    """Check everything, the cheap things first: a missing video is said before torch is imported."""
    from unleak.data.decode_worker import Decoding, default_workers
    from unleak.data.folder import find_videos
    from unleak.stats.shards import Shard
    from unleak.zoo.registry import find_model

    if not asked.videos and not asked.merge:
        raise ValueError("nothing to do; give --videos DIR, or --merge FILE twice")
    if asked.out.suffix != ".safetensors":
        raise ValueError(f"--out {asked.out}: give a name that ends in .safetensors")
    shard = Shard.parse(asked.shard) if asked.shard else Shard()
    if shard.count > 1 and (processes.count > 1 or asked.merge or not asked.videos):
        raise ValueError(f"--shard {shard}: for a single process with --videos, without --merge; leave it out")
    workers = default_workers(of_environment("LOCAL_WORLD_SIZE")) if asked.workers is None else asked.workers
    decoding = Decoding(workers, asked.seconds_per_video, asked.memory_per_worker * 2**30)
    found, spec = find_videos(asked.videos or []), find_model(asked.model)

    from unleak.stats.run import Run, check_files, files_to_merge

    check_files(asked.out, shard, processes=processes.count, overwrite=asked.overwrite)
    return Run.checked(
        processes=processes.count,
        merge=files_to_merge(asked.merge or []),
        overwrite=asked.overwrite,
        out=asked.out,
        spec=spec,
        videos=tuple(found),
        source=", ".join(asked.videos or []),
        settings=_settings(asked, spec) if found else {},
        decoding=decoding,
        max_failures=asked.max_failures,
        shard=shard,
    )


def _settings(asked: Gathering, spec: Any) -> dict[str, Any]:
    from unleak.animate.settings import Settings

    width, height = asked.size or (None, None)
    usual = Settings.for_model(spec, height=height, width=width, num_frames=asked.num_frames)
    if None in (usual.num_frames, usual.height, usual.width):
        raise ValueError(f"{spec.name} has no size of its own; give --num-frames and --size")
    settings = {name: getattr(usual, name) for name in ("num_frames", "height", "width")}
    settings |= {name: getattr(asked, name) for name in ("clips_per_video", "max_clips", "batch_size", "seed")}
    return {**settings, "fps": asked.fps or usual.fps}


def _gathered(
    part: "Run", asked: Gathering, processes: Processes, terminal: Terminal
) -> "Estimate | ValueError | OSError":
    """Gather what this process has to; returns what ended it, if something did."""
    if part.progress.exists():
        terminal.note(f"going on from {part.progress}")
    with listening(terminal) as listener:
        done = 0
        listener.progress(done, part.share, "videos")

        def on_video(reason: str | None) -> None:
            nonlocal done
            done += 1
            listener.progress(done, part.share, "videos")
            if reason:
                terminal.failure(f"skipped {' '.join(reason.split())}")

        try:
            return part.gather(processes.device(asked.device), asked.dtype, on_video)
        except (ValueError, OSError) as error:
            return error


def _written(run: "Run", outcomes: list[Any], terminal: Terminal) -> dict[str, Any]:
    from unleak.stats.run import few

    for error in (outcome for outcome in outcomes if isinstance(outcome, Exception)):
        raise error
    about = run.write([outcome for outcome in outcomes if outcome is not None], terminal.note)
    if run.shard.count == 1 and (caution := few(about["count"])):
        terminal.note(caution)
    return about
