"""`unleak tune`: the start of each photo, found by looking."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from unleak.cli.errors import WRONG_INPUT, describe_error, refuse_unmeasurable
from unleak.cli.options import (
    BASIC,
    CommandLine,
    Fix,
    Memory,
    Output,
    Video,
    argument,
    command,
    option,
    to_fidelity,
    to_start,
    to_target,
    whole,
)
from unleak.cli.terminal import Terminal

if TYPE_CHECKING:  # this module is imported for `unleak --help`, which needs none of these
    from unleak.animate.settings import Settings
    from unleak.core.start import Start
    from unleak.families.spec import ModelSpec
    from unleak.study.tune.find import Search
    from unleak.study.tune.goal import Fidelity, TargetMotion


@dataclass(frozen=True)
class Goals(Fix):
    """What is looked for."""

    target_motion: Annotated[
        "TargetMotion | None",
        option("8px/s", "Speed wanted, px/s or px/frame; by default 4 % of the width per second.", parse=to_target),
    ] = None
    budget: Annotated[int, option("N", "Previews of each photo at most.", parse=whole(3, 100))] = 6
    fidelity: Annotated[
        "Fidelity | None",
        option(
            "plain-3dB",
            "Least PSNR of the first frame: 22dB, or so far below the plain video's; by default plain-3dB.",
            parse=to_fidelity,
        ),
    ] = None
    lowest: Annotated[
        "Start | None",
        option("START", "Least noisy start allowed; by default that of the model's motion high.", parse=to_start),
    ] = None
    preview_steps: Annotated[
        int | None,
        option("N", "Denoising steps of a preview; by default a third, 9 at least.", parse=whole(1, 10_000)),
    ] = None


@dataclass(frozen=True)
class FolderOutput(Output):
    """Where the pages go."""

    out: Annotated[Path, option("FOLDER", "Folder for a folder NAME-tune of each photo.")] = Path("out")
    overwrite: Annotated[bool, option("", "Replace older results, in place of numbering.", "--overwrite")] = False


@command
def tune(
    inputs: Annotated[list[str], argument("PHOTO...", "Photos: files, folders, patterns.")],
    video: Video,
    goals: Goals,
    memory: Memory,
    output: FolderOutput,
    typed: CommandLine,
    seed: Annotated[
        int, option("N", "Seed of the noise, the same for every preview.", parse=whole(0, 2**64 - 1), panel=BASIC)
    ] = 0,
) -> int:
    """Find the start for each photo: the highest that moves as fast as asked while the first frame stays the photo.

    Previews with fewer steps, from the noise of the final video, are measured, and the start is bisected between the
    plain one and the lowest allowed. NAME-tune holds the page, the previews, the video of the start that was chosen,
    and a JSON file. `unleak generate --start auto` does the same and keeps the video alone.
    """
    from unleak.data.folder import find_images
    from unleak.data.image import load_image

    terminal = output.terminal()
    photos = find_images(inputs)
    if len(photos) == 1:
        load_image(photos[0])
    spec = video.spec()
    refuse_unmeasurable()
    from unleak.animate.noise import check_init
    from unleak.animate.settings import settings_of_starts
    from unleak.data.atomic import check_writable
    from unleak.study.place import free_folders
    from unleak.study.tune.find import LEAST_FIDELITY, Search, lowest_start, steps_of_preview
    from unleak.study.tune.goal import Fidelity
    from unleak.study.tune.result import RECORD

    device = memory.picked()
    memory.loading.check(spec, device)
    search = Search(
        goals.lowest or lowest_start(spec),
        goals.target_motion,
        goals.fidelity or Fidelity.parse(LEAST_FIDELITY),
        goals.budget,
        goals.preview_steps,
    )
    settings = settings_of_starts(spec, video.request(goals, seed=seed), [search.lowest])[search.lowest]
    fewer = search.preview_steps or steps_of_preview(settings.steps)
    wanted = [output.out / f"{photo.stem}-tune" for photo in photos]
    folders = free_folders(wanted, overwrite=output.overwrite, record=RECORD)
    check_init(settings, spec)
    check_writable(output.out)
    asked = f"{search.target or '4 % of the width per second'}, first frame {search.fidelity}"
    terminal.note(
        f"{spec.name}: {asked}; at most {search.budget} previews of {fewer} steps down to {settings.start_text}; "
        f"seed {seed}; init {settings.init}"
    )
    if caution := settings.caution(spec):
        terminal.note(caution)
    terminal.detail(f"lowest start {search.lowest}: {settings.level(spec)['text']}")
    if output.dry_run:
        for folder, photo in zip(folders, photos, strict=True):
            terminal.line(f"{photo} -> {folder / 'index.html'}")
        planned = [str(folder / "index.html") for folder in folders]
        terminal.json({"planned": planned, "lowest": str(search.lowest), "settings": dict(settings.arguments)})
        return 0

    done, failed = _found(photos, folders, spec, settings, search, device, memory, output, typed, terminal)
    terminal.json({"tuned": done, "failed": failed})
    return WRONG_INPUT if failed else 0


def _found(
    photos: list[Path],
    folders: list[Path],
    spec: "ModelSpec",
    settings: "Settings",
    search: "Search",
    device: Any,
    memory: Memory,
    output: FolderOutput,
    typed: CommandLine,
    terminal: Terminal,
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Find the start of each photo and write its page; return the records, and the photos that cannot be used."""
    from unleak.animate.model import Model
    from unleak.animate.record import Photo
    from unleak.data.image import MediaError
    from unleak.study.tune.find import tune_photo

    model, done, failed = None, list[dict[str, Any]](), list[dict[str, str]]()
    with terminal.cautions(), terminal.progress() as progress:
        overall = progress.add_task("photos", total=len(photos), visible=len(photos) > 1)
        current = progress.add_task(f"loading {spec.name}", total=None)
        for folder, path in zip(folders, photos, strict=True):
            try:
                photo = Photo.read(path)
            except (MediaError, OSError) as error:  # a bad photo stops no other
                failed.append({"photo": str(path), "reason": describe_error(error)})
                terminal.failure(describe_error(error))
                continue
            if model is None:
                with memory.loading.advising(spec, settings, device):
                    model = Model.load(spec, memory.loading, device=device, say=terminal.note)
            found = tune_photo(
                model,
                photo,
                settings,
                search,
                full=True,
                about={"reproduce": typed.text(inputs=[str(path)], out=output.out)},
                on_step=lambda what, made, of: progress.update(current, description=what, completed=made, total=of),
            )
            shown = found.save(folder, overwrite=output.overwrite)
            terminal.table(repr(found))
            if found.check:
                terminal.note(found.check)
            terminal.line(f"{path}: {found.reason}")
            terminal.line(str(shown))
            done.append({"page": str(shown), **found.record})
            progress.advance(overall)
    return done, failed
