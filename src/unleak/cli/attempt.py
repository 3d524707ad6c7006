"""`unleak try`: a photo animated until it moves."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unleak.cli.errors import refuse_unmeasurable
from unleak.cli.options import (
    BASIC,
    CommandLine,
    Fix,
    Memory,
    Output,
    Video,
    command,
    option,
    to_start,
    whole,
)

if TYPE_CHECKING:  # this module is imported for `unleak --help`, which needs none of these
    from unleak.core.start import Start


@dataclass(frozen=True)
class First(Fix):
    """Where to begin."""

    start: Annotated[
        "Start | None",
        option("START", "The first start to try; by default the one recommended for the model.", parse=to_start),
    ] = None
    budget: Annotated[int, option("N", "Videos to try, beside the plain one.", parse=whole(1, 1000))] = 6


@dataclass(frozen=True)
class TryOutput(Output):
    """Where the video and the page go."""

    out: Annotated[Path, option("FOLDER", "Folder for PHOTO.mp4 and the page PHOTO-try.")] = Path("out")
    overwrite: Annotated[bool, option("", "Replace older results, in place of numbering.", "--overwrite")] = False


@command
def attempt(
    video: Video,
    first: First,
    memory: Memory,
    output: TryOutput,
    typed: CommandLine,
    photo: Annotated[Path | None, typer.Argument(metavar="PHOTO", help="The photo to animate.")] = None,
    example: Annotated[bool, option("", "Animate a photo that comes with unleak.", "--example", panel=BASIC)] = False,
    seed: Annotated[int, option("N", "The first seed to try.", parse=whole(0, 2**63), panel=BASIC)] = 0,
) -> int:
    """Animate a photo until it moves: several seeds and lower starts are tried, and the best video is kept.

    Videos that stand still, dissolve or leave the photo are rejected by measuring them. Writes the best one as
    PHOTO.mp4, and a page of everything that was tried. The exit status is 1 if nothing was worth keeping.
    """
    from unleak.data.examples import example_photos
    from unleak.data.image import load_image

    if (photo is None) != example:
        raise ValueError("give a PHOTO, or --example for one that comes with unleak")
    terminal = output.terminal()
    chosen = example_photos()[0] if photo is None else photo
    load_image(chosen)
    spec = video.spec()
    refuse_unmeasurable()
    from unleak.animate.job import Job, placed
    from unleak.animate.model import Model
    from unleak.animate.noise import check_init
    from unleak.animate.record import Photo
    from unleak.animate.settings import Settings
    from unleak.data.atomic import check_writable
    from unleak.study.attempt import RECORD, starts_to_try, try_photo
    from unleak.study.place import free_folder

    device = memory.picked()
    memory.loading.check(spec, device)
    request = video.request(first, start=first.start, init=first.init or spec.init, seed=seed)
    settings = Settings.for_model(spec, request)
    starts = ", ".join(map(str, starts_to_try(spec, settings)))
    (job,), _ = placed([Job(chosen, output.out / f"{chosen.stem}.mp4")], "overwrite" if output.overwrite else "number")
    folder = free_folder(output.out / f"{chosen.stem}-try", overwrite=output.overwrite, record=RECORD)
    check_init(settings, spec)
    check_writable(output.out)
    asked = f"{first.budget} video{'s' * (first.budget > 1)} from start {starts}"
    terminal.note(f"{spec.name}: {asked}; {settings.steps} steps; init {settings.init}")
    if caution := settings.caution(spec):
        terminal.note(caution)
    if output.dry_run:
        terminal.line(f"{chosen} -> {job.video}, {folder / 'index.html'}")
        terminal.json({"planned": [str(job.video), str(folder / "index.html")], "starts": starts.split(", ")})
        return 0

    with memory.loading.advising(spec, settings, device):
        model = Model.load(spec, memory.loading, device=device, say=terminal.note)
    with terminal.cautions(), terminal.progress() as progress:
        task = progress.add_task("videos", total=(first.budget + 1) * settings.steps)
        done = try_photo(
            model,
            Photo.read(chosen),
            settings,
            budget=first.budget,
            about={"reproduce": typed.text(out=output.out)},
            on_step=lambda number, _, __: progress.update(task, description=f"video {number}", advance=1),
        )
    shown = done.save(folder, overwrite=output.overwrite)
    job.write(done.frames, {"video": str(job.video), **done.record}, fps=done.fps)
    terminal.table(repr(done))
    terminal.line(str(job.video))
    terminal.line(str(shown))
    if not done.found:
        of = [] if spec.name == "nano" else ["--model", spec.name if spec.family else spec.source]
        why = shlex.join(["unleak", "diagnose", "--quick", "--photos", str(chosen), *of])
        terminal.note(f"next, try --budget {2 * first.budget}, or see why: `{why}`")
    terminal.json({"video": str(job.video), "page": str(shown), "text": done.text, **done.record})
    return 0 if done.found else 1
