"""`unleak compare`: fixes and models side by side on the same photos and noise, as one page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from unleak.cli.errors import refuse_unmeasurable
from unleak.cli.options import (
    BASIC,
    FIX,
    MODEL,
    OUTPUT,
    CommandLine,
    Group,
    Memory,
    Output,
    Photos,
    Video,
    command,
    option,
    read_prompts,
    to_text,
    whole,
)
from unleak.cli.studies import listening, notes_of


@dataclass(frozen=True)
class Cases(Group):
    """The ways to make the videos, and the noises."""

    panel = BASIC

    case: Annotated[
        list[str] | None,
        option(
            "'LABEL: NAME=VALUE ...'",
            "A way to make the videos: values of model, start, init, mode, motion, guidance, steps and lora, and fixes "
            "as --fix takes them; repeatable.",
            panel=FIX,
        ),
    ] = None
    start: Annotated[
        str | None,
        option("START,START,...", "A case for each start: 1.00T,0.94T,0.90T, ...", parse=to_text, panel=FIX),
    ] = None
    models: Annotated[
        str | None,
        option("MODEL,MODEL,...", "A case for each model, as for a grid of checkpoints.", parse=to_text, panel=MODEL),
    ] = None
    seeds: Annotated[int, option("N", "Noises for each photo.", parse=whole(1, 1000))] = 1
    seed: Annotated[int, option("N", "Seed of the first noise, the same for every case.", parse=whole(0, 2**63))] = 0
    metrics: Annotated[
        str | None,
        option("NAME,...", "Measure these only, such as motion_score,flicker.", parse=to_text, panel=OUTPUT),
    ] = None
    extend: Annotated[
        list[Path] | None,
        option("FILE", "A Python file that registers metrics of your own; it is run. Repeatable.", panel=OUTPUT),
    ] = None


@dataclass(frozen=True)
class CompareOutput(Output):
    """Where the page goes."""

    out: Annotated[
        Path | None, option("FOLDER", "Folder for the page and all it shows; by default out/PHOTO-compare.")
    ] = None
    show: Annotated[int, option("N", "Pairs of photo and noise on the page.", parse=whole(1, 100))] = 4
    overwrite: Annotated[bool, option("", "Replace an older comparison.", "--overwrite")] = False


@command
def compare(
    photos: Photos, cases: Cases, video: Video, memory: Memory, output: CompareOutput, typed: CommandLine
) -> None:
    """Compare fixes, starts and models: the same photos and noise, every video measured, one page to look at.

    Without --case, --start and --models: the plain model, the start recommended for it, the same with Analytic-Init,
    and the rivals that the model allows. A grid of starts is --start 1.00T,0.94T,0.90T,0.86T,0.82T; a grid of training
    is --models with the folder of each checkpoint. --lora holds for every case, the lora of a case for that one alone.
    """
    terminal = output.terminal()
    video.spec()
    entries, _ = photos.entries(video.prompt)
    refuse_unmeasurable()
    from unleak.data.atomic import check_writable
    from unleak.measure.registry import extend, parse_metrics
    from unleak.study.compare.result import RECORD
    from unleak.study.compare.run import plan
    from unleak.study.place import free_folder

    for file in cases.extend or ():
        extend(file)
    planned = plan(
        photos.inputs,
        cases.case or (),
        model=video.model,
        start=cases.start,
        models=cases.models,
        seed=cases.seed,
        seeds=cases.seeds,
        metrics=parse_metrics(cases.metrics, "compare"),
        prompts=None if photos.prompts is None else read_prompts(photos.prompts, len(entries), video.prompt),
        mask=photos.mask,
        allow_outside=photos.allow_outside,
        loading=memory.loading,
        request=video.request(),
        listener=notes_of(terminal),
    )
    out = output.out or Path("out") / f"{entries[0].photo.stem}-compare"
    out = free_folder(out, overwrite=output.overwrite, record=RECORD)
    check_writable(out.parent)
    for one in planned.cases:
        terminal.note(f"{one.case.label}: {one.spec.name}; {one.settings.start_text}; init {one.settings.init}")
        terminal.detail(one.settings.level(one.spec)["text"])
    for caution in dict.fromkeys(one.settings.caution(one.spec) for one in planned.cases):
        if caution:
            terminal.note(caution)
    if output.dry_run:
        terminal.line(f"{len(entries)} photo{'s' * (len(entries) > 1)} -> {out / 'index.html'}")
        terminal.json({"planned": str(out / "index.html"), "cases": [vars(one.case) for one in planned.cases]})
        return
    with terminal.cautions(), listening(terminal) as listener:
        done = planned.run(listener, {"reproduce": typed.text(out=out)})
    saved = done.save(out, shown=output.show)
    for number, label in enumerate(one.case.label for one in planned.cases):
        said = [f"{name.replace('_', ' ')} {mean['value']:.3g}" for name, mean in done.summary(number).items()
                if mean is not None and name in done.names[:3]]  # fmt: skip
        terminal.note(f"{label}: {', '.join(said)}")
    terminal.line(str(saved))
    terminal.json({"page": str(saved), **done.record})
