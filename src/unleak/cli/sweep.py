"""`unleak sweep`: one photo from several starts, on one page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from unleak.cli.errors import refuse_unmeasurable
from unleak.cli.options import (
    BASIC,
    FIX,
    CommandLine,
    Fix,
    Memory,
    Output,
    Video,
    argument,
    command,
    option,
    to_starts,
    whole,
)


@dataclass(frozen=True)
class PageOutput(Output):
    """Where the page goes."""

    out: Annotated[
        Path | None, option("FOLDER", "Folder for the page and all it shows; by default out/PHOTO-sweep.")
    ] = None
    overwrite: Annotated[bool, option("", "Replace an older sweep, in place of numbering.", "--overwrite")] = False


@command
def sweep(
    photo: Annotated[Path, argument("PHOTO", "The photo to animate.")],
    video: Video,
    fix: Fix,
    memory: Memory,
    output: PageOutput,
    typed: CommandLine,
    start: Annotated[
        Any, option("START,...", "Where sampling starts: 1.00T,0.94T, sigma=100, 940, ...", parse=to_starts, panel=FIX)
    ] = "1.00T,0.94T,0.90T,0.86T,0.82T",
    seed: Annotated[
        int, option("N", "Seed of the noise, the same for every start.", parse=whole(0, 2**64 - 1), panel=BASIC)
    ] = 0,
) -> None:
    """Animate a photo from several starts with the same noise, and see what the start does to the motion.

    Writes one page (index.html) that plays all videos in sync and plots motion against start, a contact sheet, the
    videos, and a JSON file with every setting and number. A page that exists is kept, and the new one is numbered.
    """
    from unleak.data.image import load_image

    terminal = output.terminal()
    load_image(photo)
    spec = video.spec()
    refuse_unmeasurable()
    from unleak.animate.model import Model
    from unleak.animate.noise import check_init
    from unleak.animate.record import Photo
    from unleak.animate.settings import settings_of_starts
    from unleak.data.atomic import check_writable
    from unleak.study.place import free_folder
    from unleak.study.sweep import sweep_photo

    device = memory.picked()
    memory.loading.check(spec, device)
    each = settings_of_starts(spec, video.request(fix, seed=seed), start)
    settings = each[start[0]]
    out = free_folder(output.out or Path("out") / f"{photo.stem}-sweep", overwrite=output.overwrite)
    check_init(settings, spec)
    check_writable(out.parent)
    terminal.note(f"{spec.name}: {len(start)} starts; {settings.steps} steps; seed {seed}; init {settings.init}")
    if caution := settings.caution(spec):
        terminal.note(caution)
    for one, its in each.items():
        terminal.detail(f"start {one}: {its.level(spec)['text']}")
    if output.dry_run:
        terminal.line(f"{photo} -> {out / 'index.html'}")
        planned = {str(one): its.level(spec) for one, its in each.items()}
        terminal.json({"planned": str(out / "index.html"), "starts": planned, "settings": dict(settings.arguments)})
        return

    with memory.loading.advising(spec, settings, device):
        model = Model.load(spec, memory.loading, device=device, say=terminal.note)
    with terminal.cautions(), terminal.progress() as progress:
        task = progress.add_task("starts", total=len(start) * settings.steps)
        done = sweep_photo(
            model,
            Photo.read(photo),
            each,
            about={"reproduce": typed.text(out=out)},
            on_step=lambda one, _, __: progress.update(task, description=f"start {one}", advance=1),
        )
    shown = done.save(out, overwrite=output.overwrite)
    terminal.line(str(shown))
    terminal.table(repr(done))
    terminal.json({"page": str(shown), **done.record})
