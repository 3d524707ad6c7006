"""`unleak sweep`: one photo from several starts, on one page."""

import hashlib
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from unleak.cli.errors import refuse_unmeasurable
from unleak.cli.options import (
    ConditionNoiseOption,
    DryRunOption,
    FpsOption,
    FramesOption,
    GuidanceIntervalOption,
    GuidanceOption,
    JsonOption,
    LowPassOption,
    ModelOption,
    ModeOption,
    NegativePromptOption,
    NoiseAugOption,
    OthersOption,
    PromptOption,
    QuietOption,
    SizeOption,
    StepsOption,
    parse_guidance,
    parse_size,
    parse_strategies,
)
from unleak.cli.placement import DeviceOption, DtypeOption, LoraOption, OffloadOption, Placement, TilingOption
from unleak.cli.terminal import Terminal

# What a command is really given; in a private module, and not the same one in every version of typer.
_Context: Any = typer.Context.__base__


def sweep(
    context: _Context,
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="The photo to animate.")],
    start: Annotated[
        str, typer.Option(metavar="START,START,...", help="Where sampling starts: 1.00T,0.94T, sigma=100, 940, ...")
    ] = "1.00T,0.94T,0.90T,0.86T,0.82T",
    model: ModelOption = "nano",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the page and all it shows; by default out/PHOTO-sweep.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Of the noise, the same for every start.")] = 0,
    num_frames: FramesOption = None,
    fps: FpsOption = None,
    steps: StepsOption = None,
    size: SizeOption = None,
    init: Annotated[str, typer.Option(help="Initial noise: standard, unit, analytic, or moments file.")] = "standard",
    mode: ModeOption = "rescale",
    guidance: GuidanceOption = None,
    prompt: PromptOption = None,
    negative_prompt: NegativePromptOption = None,
    noise_aug: NoiseAugOption = None,
    low_pass: LowPassOption = None,
    condition_noise: ConditionNoiseOption = None,
    guidance_interval: GuidanceIntervalOption = None,
    others: OthersOption = None,
    lora: LoraOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older sweep of the same name.")] = False,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    offload: OffloadOption = "none",
    vae_tiling: TilingOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Animate a photo from several starts with the same noise, and see what the start does to the motion.

    Writes one page (index.html) that plays all videos in sync and plots motion against start, a contact sheet, the
    videos, and a JSON file with every setting and number.
    """
    from unleak.data.image import load_image
    from unleak.zoo.registry import find_model

    terminal = Terminal(quiet, as_json)
    out = out or Path("out") / f"{photo.stem}-sweep"
    spec = find_model(model)
    width, height = parse_size(size)
    low, high = parse_guidance(guidance)
    image = load_image(photo)

    refuse_unmeasurable()
    from unleak.animate.memory import advising
    from unleak.animate.sample import Settings, check_init, initial_noise, sample, size_of
    from unleak.core.start import Start
    from unleak.data.atomic import check_writable
    from unleak.study.sweep import Sweep, check_replaceable, parse_starts, run_all, versions
    from unleak.zoo.hub import pick_device

    picked, placed = pick_device(device), Placement.of(dtype, offload, vae_tiling, lora)
    placed.check(spec, picked)
    starts = parse_starts(start)
    fixes = parse_strategies(low_pass, condition_noise, guidance_interval)
    each = {
        one: Settings.for_model(
            spec,
            height=height,
            width=width,
            num_frames=num_frames,
            fps=fps,
            steps=steps,
            min_guidance=low,
            max_guidance=high,
            noise_aug_strength=noise_aug,
            prompt=prompt,
            negative_prompt=negative_prompt,
            others=others or (),
            start=str(one),
            init=init,
            mode=mode,
            seed=seed,
            strategies=fixes,
        )
        for one in starts
    }
    settings = each[starts[0]]
    check_init(init, spec, **size_of(settings))
    check_replaceable(out, overwrite=overwrite)
    for note in image.info["notes"]:
        terminal.note(f"{photo}: {note}")
    terminal.note(f"{spec.name}: {len(starts)} starts, steps {settings.steps}, seed {seed}, init {init}")
    for one, its in each.items():
        terminal.note(f"start {one}: {its.level(spec)['text']}")
    if dry_run:
        terminal.line(f"{photo} -> {out / 'index.html'}")
        planned = {str(one): its.level(spec) for one, its in each.items()}
        terminal.json({"planned": str(out / "index.html"), "starts": planned, "settings": dict(settings.arguments)})
        return

    check_writable(out.parent)
    noise = initial_noise(init, spec, **size_of(settings))
    with advising(spec, settings, picked, offload=offload, vae_tiling=vae_tiling):
        pipe = placed.load(spec, picked, terminal)
        with terminal.progress() as progress:
            overall = progress.add_task("starts", total=len(starts))

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

            runs = run_all(pipe, starts, make, init=noise, mode=mode, steps=settings.steps)
    about = {
        "title": f"{photo.name}: motion against start",
        "seed": seed,
        "init": init,
        "mode": mode,
        "strategies": settings.record["strategies"],
        "photo": {
            "file": str(photo),
            "sha256": hashlib.sha256(photo.read_bytes()).hexdigest(),
            "size": list(image.size),
            "notes": image.info["notes"],
        },
        "model": {"name": spec.name, "source": spec.source, "revision": spec.revision, "moments": spec.moments},
        "loras": placed.record["loras"],
        "settings": dict(settings.arguments),
        "device": str(pipe.device),
        "dtype": str(pipe.dtype).removeprefix("torch."),
        "versions": versions(),
        "reproduce": command_line(context, out=out),
    }
    done = Sweep(runs, settings.fps, about)
    shown = done.save(out, overwrite=overwrite)
    terminal.line(str(shown))
    terminal.note(repr(done))
    terminal.json({"page": str(shown), **done.record})


def command_line(context: _Context, **resolved: Any) -> str:
    """The command with every option that decides its result and has a value."""
    words = ["unleak", str(context.info_name)]
    for parameter in context.command.params:
        value = resolved.get(str(parameter.name), context.params.get(str(parameter.name)))
        silent = parameter.name in ("overwrite", "quiet", "as_json", "dry_run")
        if silent or value is None or value is False:
            continue
        option = [] if parameter.param_type_name == "argument" else [parameter.opts[0]]
        for one in value if isinstance(value, list | tuple) else [value]:
            words += option if isinstance(one, bool) else [*option, str(one)]
    return shlex.join(words)
