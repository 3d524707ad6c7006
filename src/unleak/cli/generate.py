"""`unleak generate`: photos to videos."""

import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from unleak.cli.errors import WRONG_INPUT, as_options, describe_error, refuse_unmeasurable
from unleak.cli.options import (
    BASIC,
    Fix,
    Memory,
    Output,
    Photos,
    Video,
    command,
    option,
    to_start_or_auto,
    to_target,
    whole,
)
from unleak.cli.processes import Processes, launched
from unleak.cli.terminal import Terminal

if TYPE_CHECKING:  # this module is imported for `unleak --help`, which needs none of these
    from unleak.animate.job import Job
    from unleak.core.start import Start
    from unleak.families.spec import ModelSpec
    from unleak.study.generate import Batch, Result
    from unleak.study.tune.goal import TargetMotion


@dataclass(frozen=True)
class StartOrFix(Fix):
    """Where sampling starts, or what finds it."""

    start: Annotated[
        "Start | Literal['auto'] | None",
        option(
            "START",
            "Where sampling starts: 940, 0.94T, sigma=100 or logsnr=-5.3; 1.0T is the plain model; auto finds it.",
            parse=to_start_or_auto,
        ),
    ] = None
    motion: Annotated[
        Literal["low", "medium", "high"] | None,
        option("WORD", "A preset of the model in place of --start: low, medium or high."),
    ] = None
    target_motion: Annotated[
        "TargetMotion | None",
        option("8px/s", "With --start auto: the speed wanted, px/s or px/frame.", parse=to_target),
    ] = None
    budget: Annotated[
        int | None, option("N", "With --start auto: previews of a photo at most; by default 6.", parse=whole(3, 100))
    ] = None

    def __post_init__(self) -> None:
        if self.start is not None and self.motion is not None:
            raise ValueError("motion chooses the start; give motion or start, not both")
        for name, given in (("--target-motion", self.target_motion), ("--budget", self.budget)):
            if given is not None and self.start != "auto":
                raise ValueError(f"{name} {given}: it says what --start auto looks for; give --start auto with it")


@dataclass(frozen=True)
class VideoOutput(Output):
    """Where the videos go."""

    out: Annotated[Path, option("FOLDER", "Folder for NAME.mp4 and NAME.json.")] = Path("out")
    format: Annotated[
        Literal["mp4", "gif", "webp", "png"],
        option("KIND", "mp4, gif, webp, or png: one sheet with all frames."),
    ] = "mp4"
    overwrite: Annotated[bool, option("", "Replace a video that exists, in place of numbering.", "--overwrite")] = False
    skip_existing: Annotated[bool, option("", "Leave out photos whose video exists.", "--skip-existing")] = False

    def __post_init__(self) -> None:
        if self.overwrite and self.skip_existing:
            raise ValueError("--overwrite and --skip-existing exclude each other; give one of them")


@command
def generate(
    photos: Photos,
    video: Video,
    fix: StartOrFix,
    memory: Memory,
    output: VideoOutput,
    seed: Annotated[
        int,
        option("N", "Seed of the noise; a photo of a list may add its own.", parse=whole(0, 2**64 - 1), panel=BASIC),
    ] = 0,
) -> int:
    """Animate photos with the leak of the model fixed; NAME.json beside each video says exactly how it was made.

    A list asks for photos with prompts: JSON lines such as {"dir": "1.png", "text": "fireworks", "seed": 7}, a CSV with
    these columns, or a folder with a .txt file that has a line for each photo by name.

    Without --start and --motion the fix recommended for the model is used. --start 1.0T gives the plain model, and
    --start auto what `unleak tune` finds for each photo. A video that exists is kept, and the new one is numbered.
    Under `accelerate launch -m unleak generate ...` the photos are shared out over the processes.
    """
    with launched() as processes:
        terminal = replace(output.terminal(), quiet=output.quiet or not processes.is_main)

        def check() -> "Batch":
            return _checked(photos, video, fix, memory, output, seed, processes, terminal)

        batch = processes.from_main(check)
        _announce(batch, fix, terminal, dry_run=output.dry_run)
        outcome = Outcome([], [])
        if not output.dry_run:
            outcome = _made(batch, fix, processes, terminal)
        elif processes.is_main:
            outcome = _planned(batch, terminal)
        return _reported(batch, processes, terminal, outcome, dry_run=output.dry_run)


@dataclass(frozen=True)
class Outcome:
    """What came of the photos of one process; `error` ended them."""

    done: list[dict[str, Any]]
    failed: list[dict[str, str]]
    error: ValueError | OSError | None = None


def _checked(
    photos: Photos,
    video: Video,
    fix: StartOrFix,
    memory: Memory,
    output: VideoOutput,
    seed: int,
    processes: Processes,
    terminal: Terminal,
) -> "Batch":
    """Check everything, the cheap things first: a missing photo is reported before torch is imported."""
    from unleak.data.atomic import check_writable
    from unleak.data.image import load_image

    entries, texts = photos.entries(video.prompt)
    if seed + max(entry.seed or 0 for entry in entries) >= 2**64:
        raise ValueError(f"--seed {seed} and those of the list go beyond 2^64; give a lower --seed")
    if len(entries) == 1:
        load_image(entries[0].photo)
    spec = video.spec()
    check_writable(output.out)
    if fix.start == "auto":
        refuse_unmeasurable()

    from unleak.animate.job import Job
    from unleak.animate.settings import reads_prompts
    from unleak.study.generate import Batch
    from unleak.study.tune.find import BUDGET, Search, lowest_start

    if any(entry.prompt for entry in entries) and not reads_prompts(spec):
        terminal.note(f"{spec.name} reads no prompts: those of the list have no effect")
        texts = [None] * len(texts)
    jobs = []
    for one, text in zip(entries, texts, strict=True):
        file = output.out / f"{one.name or one.photo.stem}.{output.format}"
        jobs.append(Job(one.photo, file, text, one.mask or photos.mask, one.seed))
    search = Search(lowest_start(spec), fix.target_motion, budget=fix.budget or BUDGET) if fix.start == "auto" else None
    return Batch.checked(
        spec,
        video.request(
            fix,
            start=None if fix.start == "auto" else fix.start,
            motion=fix.motion,
            seed=seed,
            prompt=next((text for text in texts if text is not None), video.prompt),
        ),
        jobs,
        loading=memory.loading,
        device=processes.device(memory.device),
        where="overwrite" if output.overwrite else "skip" if output.skip_existing else "number",
        search=search,
        offline=output.dry_run,
    )


def _announce(batch: "Batch", fix: StartOrFix, terminal: Terminal, *, dry_run: bool) -> None:
    """Say what will be made, in a few lines; every unit and argument with --verbose."""
    for job in batch.done:
        terminal.note(f"skipped {job.photo}: {job.video} was made of it")
    spec, settings = batch.spec, batch.settings
    terminal.note(f"{spec.name}: {settings.size_text}; {settings.steps} steps; seed {settings.seed}")
    if batch.search is not None:
        terminal.note(
            f"start auto: at most {batch.search.budget} previews of each photo, down to {settings.start_text}"
        )
    else:
        why = ", the fix recommended for this model" if fix.start is None and fix.motion is None else ""
        terminal.note(
            f"{settings.start_text}{why}; init {settings.init}" + "".join(f"; {x}" for x in settings.strategies)
        )
        terminal.detail(settings.level(spec)["text"])
    if settings.arguments.get("prompt") == "":
        terminal.note("no prompt: this model reads one; --prompt says what happens")
    for caution in filter(None, (settings.caution(spec), spec.caution)):
        terminal.note(caution)
    resolved = (f"{name} {value}" for name, value in settings.arguments.items() if value not in (None, ""))
    (terminal.note if dry_run else terminal.detail)(
        f"{', '.join(resolved)}; played at {settings.fps:g} frames a second"
    )


def _planned(batch: "Batch", terminal: Terminal) -> Outcome:
    """Read the photos, and say what would become of each."""
    from unleak.data.image import MediaError

    outcome = Outcome([], [])
    for job in batch.jobs:
        try:
            job.read()
        except (MediaError, OSError) as error:
            outcome.failed.append({"photo": str(job.photo), "reason": describe_error(error)})
            terminal.failure(describe_error(error))
        else:
            outcome.done.append({"photo": str(job.photo), "video": str(job.video)})
            terminal.line(f"{job.photo} -> {job.video}")
    return outcome


def _made(batch: "Batch", fix: StartOrFix, processes: Processes, terminal: Terminal) -> Outcome:
    """Make the videos of this process, and say what became of each."""
    outcome, said = Outcome([], []), set[str]()
    jobs = batch.share(processes.rank, processes.count)
    with terminal.progress() as progress:
        photos = progress.add_task("photos", total=len(jobs), visible=len(jobs) > 1)
        current = progress.add_task(f"loading {batch.spec.name}", total=None)

        def on_step(job: "Job", preview: str | None, done: int, of: int) -> None:
            text = job.photo.name + (f", preview from {preview}" if preview else "")
            progress.update(current, description=text, completed=done, total=of)

        device = processes.device(batch.loading.device)
        try:
            for result in batch.videos(jobs, device, say=terminal.note, on_step=on_step):
                progress.advance(photos)
                if result.video is None:
                    assert result.error is not None
                    reason = describe_error(result.error)
                    outcome.failed.append({"photo": str(result.job.photo), "reason": reason})
                    terminal.failure(reason)
                    continue
                outcome.done.append(result.video.record)
                terminal.line(str(result.job.video))
                for text in _words(result, batch.spec, advise=fix.start is None):
                    if text not in said:  # a warning once, not for every photo
                        terminal.note(text)
                        said.add(text)
        except (ValueError, OSError) as error:
            return replace(outcome, error=error)
    return outcome


def _words(result: "Result", spec: "ModelSpec", *, advise: bool) -> "Iterator[str]":
    """Say what a person wants to know of a video; `advise`: also what to try where it came out still."""
    name, video = result.job.photo.name, result.video
    assert video is not None
    yield from (f"{name}: {note}" for note in result.notes)
    yield from map(as_options, video.cautions)
    if video.tuned is not None:
        yield f"{name}: {video.tuned.reason}"
        yield f"{name}: {video.tuned.check}"
    if video.verdict is None:
        yield "whether it moves is not known: pip install 'unleak[evaluate]'"
        return
    yield f"{name}: {video.verdict.text}; {video.record['seconds']:.0f} s"
    if video.verdict.still and advise and video.tuned is None:
        model = [] if spec.name == "nano" else ["--model", spec.name if spec.family else spec.source]
        again = shlex.join(["unleak", "try", str(result.job.photo), *model])
        yield f"{name}: it came out still; next, try `{again}`, which looks for a seed and a start that move"


def _reported(batch: "Batch", processes: Processes, terminal: Terminal, outcome: Outcome, *, dry_run: bool) -> int:
    """Gather what all processes made, and print it for programs; return the exit status."""
    outcomes = processes.gather(outcome)
    for error in (other.error for other in outcomes if other.error is not None):
        raise error
    order = {str(job.video): place for place, job in enumerate(batch.jobs)}
    done = sorted((record for other in outcomes for record in other.done), key=lambda made: order[made["video"]])
    failed = [failure for other in outcomes for failure in other.failed]
    if processes.is_main:
        terminal.json(
            {
                "model": asdict(batch.spec),
                "settings": batch.settings.record | ({"start": "auto"} if batch.search else {}),
                "level": None if batch.search else batch.settings.level(batch.spec),
                "planned" if dry_run else "videos": done,
                "skipped": [str(job.video) for job in batch.done],
                "failed": failed,
            }
        )
    processes.outlive_main()
    return WRONG_INPUT if failed else 0
