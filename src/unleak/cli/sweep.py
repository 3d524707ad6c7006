"""`unleak sweep`: one photo from several starts, on one page."""

import hashlib
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
class SweepOutput(Output):
    """Where the page goes."""

    out: Annotated[
        Path | None, option("FOLDER", "Folder for the page and all it shows; by default out/PHOTO-sweep.")
    ] = None
    overwrite: Annotated[bool, option("", "Replace an older sweep of the same name.", "--overwrite")] = False


@command
def sweep(
    photo: Annotated[Path, argument("PHOTO", "The photo to animate.")],
    video: Video,
    fix: Fix,
    memory: Memory,
    output: SweepOutput,
    typed: CommandLine,
    start: Annotated[
        Any,
        option(
            "START,START,...", "Where sampling starts: 1.00T,0.94T, sigma=100, 940, ...", parse=to_starts, panel=FIX
        ),
    ] = "1.00T,0.94T,0.90T,0.86T,0.82T",
    seed: Annotated[
        int, option("N", "Seed of the noise, the same for every start.", parse=whole(0, 2**64 - 1), panel=BASIC)
    ] = 0,
) -> None:
    """Animate a photo from several starts with the same noise, and see what the start does to the motion.

    Writes one page (index.html) that plays all videos in sync and plots motion against start, a contact sheet, the
    videos, and a JSON file with every setting and number.
    """
    from unleak.data.image import load_image
    from unleak.zoo.registry import find_model

    terminal = output.terminal()
    out = output.out or Path("out") / f"{photo.stem}-sweep"
    spec = find_model(video.model)
    image = load_image(photo)

    refuse_unmeasurable()
    from unleak.animate.memory import advising
    from unleak.animate.sample import Settings, check_init, initial_noise, sample, size_of
    from unleak.animate.versions import versions
    from unleak.core.start import Start
    from unleak.data.atomic import check_writable
    from unleak.study.sweep import Sweep, check_replaceable, run_all

    picked = memory.picked()
    memory.check(spec, picked)
    each = {one: Settings.for_model(spec, video.request(fix, start=one, seed=seed)) for one in start}
    settings = each[start[0]]
    check_init(settings.init, spec, **size_of(settings))
    check_replaceable(out, overwrite=output.overwrite)
    for note in image.info["notes"]:
        terminal.note(f"{photo}: {note}")
    terminal.note(f"{spec.name}: {len(start)} starts, steps {settings.steps}, seed {seed}, init {settings.init}")
    for one, its in each.items():
        terminal.note(f"start {one}: {its.level(spec)['text']}")
    if output.dry_run:
        terminal.line(f"{photo} -> {out / 'index.html'}")
        planned = {str(one): its.level(spec) for one, its in each.items()}
        terminal.json({"planned": str(out / "index.html"), "starts": planned, "settings": dict(settings.arguments)})
        return

    check_writable(out.parent)
    noise = initial_noise(settings.init, spec, **size_of(settings))
    with advising(spec, settings, picked, offload=memory.offload, vae_tiling=memory.vae_tiling):
        pipe = memory.load(spec, picked, terminal)
        with terminal.progress() as progress:
            overall = progress.add_task("starts", total=len(start))

            def make(one: Start) -> Any:
                task = progress.add_task(str(one), total=settings.steps)
                made = sample(
                    pipe,
                    image,
                    each[one],
                    noise,
                    on_step=lambda done, of: progress.update(task, completed=done, total=of),
                )
                progress.remove_task(task)
                progress.advance(overall)
                return made.frames, made.record["sigmas"]

            runs = run_all(pipe, start, make, init=noise, mode=fix.mode, steps=settings.steps)
    about = {
        "title": f"{photo.name}: motion against start",
        "seed": seed,
        "init": settings.init,
        "mode": fix.mode,
        "strategies": settings.record["strategies"],
        "photo": {
            "file": str(photo),
            "sha256": hashlib.sha256(photo.read_bytes()).hexdigest(),
            "size": list(image.size),
            "notes": image.info["notes"],
        },
        "model": {"name": spec.name, "source": spec.source, "revision": spec.revision, "moments": spec.moments},
        "loras": memory.record["loras"],
        "settings": dict(settings.arguments),
        "device": str(pipe.device),
        "dtype": str(pipe.dtype).removeprefix("torch."),
        "versions": versions(),
        "reproduce": typed.text(out=out),
    }
    done = Sweep(runs, settings.fps, about)
    shown = done.save(out, overwrite=output.overwrite)
    terminal.line(str(shown))
    terminal.note(repr(done))
    terminal.json({"page": str(shown), **done.record})
