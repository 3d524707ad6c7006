"""`unleak tune`: the start of each photo, found by looking."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from unleak.cli.errors import WRONG_INPUT, describe_error, refuse_unmeasurable
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
    command_line,
    parse_guidance,
    parse_size,
    parse_strategies,
    refuse_empty,
)
from unleak.cli.placement import DeviceOption, DtypeOption, LoraOption, OffloadOption, Placement, TilingOption
from unleak.cli.terminal import Terminal

# What a command is really given; in a private module, and not the same one in every version of typer.
_Context: Any = typer.Context.__base__


def tune(
    context: _Context,
    inputs: Annotated[list[str], typer.Argument(metavar="PHOTO...", help="Photos: files, folders, patterns.")],
    target_motion: Annotated[
        str | None,
        typer.Option(metavar="8px/s", help="Speed wanted, px/s or px/frame; by default 4 % of the width a second."),
    ] = None,
    budget: Annotated[int, typer.Option(min=3, max=100, help="Previews of each photo at most.")] = 6,
    fidelity: Annotated[
        str, typer.Option(metavar="plain-3dB", help="Least PSNR of the first frame: 22dB, or below the plain video's.")
    ] = "plain-3dB",
    lowest: Annotated[
        str | None, typer.Option(metavar="START", help="Least noisy start allowed; by default the model's motion high.")
    ] = None,
    preview_steps: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Denoising steps of a preview; by default a third, 9 or more.")
    ] = None,
    model: ModelOption = "nano",
    out: Annotated[Path, typer.Option(help="Folder for a folder NAME-tune of each photo.")] = Path("out"),
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Of the noise, the same for every preview.")] = 0,
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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace older results of the same name.")] = False,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    offload: OffloadOption = "none",
    vae_tiling: TilingOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    dry_run: DryRunOption = False,
) -> int:
    """Find the start for each photo: the highest that moves as fast as asked while the first frame stays the photo.

    Previews with fewer steps, from the noise of the final video, are measured and the start is bisected between the
    plain one and the lowest allowed. NAME-tune holds the page, the previews, the video of the start that was chosen,
    and a JSON file. `unleak generate --start auto` does the same and keeps the video alone.
    """
    from unleak.data.folder import find_images
    from unleak.data.image import MediaError, load_image
    from unleak.zoo.registry import find_model

    terminal = Terminal(quiet, as_json)
    refuse_empty(model=model, lowest=lowest, init=init)
    photos = find_images(inputs)
    folders: dict[Path, Path] = {}
    for photo in photos:
        folder = out / f"{photo.stem}-tune"
        if folder in folders:
            raise ValueError(f"{photo}: {folder} is of {folders[folder]}; rename one of them")
        folders[folder] = photo
    spec = find_model(model)
    width, height = parse_size(size)
    if len(photos) == 1:
        load_image(photos[0])

    refuse_unmeasurable()
    from unleak.animate.memory import advising
    from unleak.animate.sample import Settings, check_init, initial_noise, size_of
    from unleak.core.start import Start
    from unleak.data.atomic import check_writable
    from unleak.study.sweep import check_replaceable, versions
    from unleak.study.tune.find import lowest_start, steps_of_preview, tune_settings
    from unleak.study.tune.result import RECORD, Fidelity, Preview, TargetMotion
    from unleak.zoo.hub import pick_device

    target = None if target_motion is None else TargetMotion.parse(target_motion)
    least = Fidelity.parse(fidelity)
    picked, placed = pick_device(device), Placement.of(dtype, offload, vae_tiling, lora)
    placed.check(spec, picked)
    bottom = lowest_start(spec) if lowest is None else Start.parse(lowest)
    settings = Settings.for_model(
        spec,
        height=height,
        width=width,
        num_frames=num_frames,
        fps=fps,
        steps=steps,
        guidance=parse_guidance(guidance),
        noise_aug_strength=noise_aug,
        prompt=prompt,
        negative_prompt=negative_prompt,
        others=others or (),
        start=str(bottom),
        init=init,
        mode=mode,
        seed=seed,
        strategies=parse_strategies(low_pass, condition_noise, guidance_interval),
    )
    fewer = preview_steps or steps_of_preview(settings.steps)
    check_init(init, spec, **size_of(settings))
    for folder in folders:
        check_replaceable(folder, overwrite=overwrite, record=RECORD)
    asked = f"{target or '4 % of the width a second'}, first frame {least}"
    terminal.note(f"{spec.name}: {asked}; at most {budget} previews of {fewer} steps, seed {seed}, init {init}")
    terminal.note(f"lowest start {bottom}: {settings.level(spec)['text']}")
    if dry_run:
        for folder, photo in folders.items():
            terminal.line(f"{photo} -> {folder / 'index.html'}")
        planned = [str(folder / "index.html") for folder in folders]
        terminal.json({"planned": planned, "lowest": str(bottom), "settings": dict(settings.arguments)})
        return 0

    check_writable(out)
    noise = initial_noise(init, spec, **size_of(settings))
    done, failed = list[dict[str, Any]](), list[dict[str, str]]()
    pipe: Any = None
    with advising(spec, settings, picked, offload=offload, vae_tiling=vae_tiling), terminal.progress() as progress:
        overall = progress.add_task("photos", total=len(folders), visible=len(folders) > 1)
        for folder, photo in folders.items():
            try:
                image = load_image(photo)
            except (MediaError, OSError) as error:  # a bad photo stops no other
                failed.append({"photo": str(photo), "reason": describe_error(error)})
                terminal.failure(describe_error(error))
                progress.advance(overall)
                continue
            for note in image.info["notes"]:
                terminal.note(f"{photo}: {note}")
            if pipe is None:
                pipe = placed.load(spec, picked, terminal)
            previews = progress.add_task(photo.name, total=budget)
            current = progress.add_task("", total=fewer)

            def on_step(what: str, made: int, of: int, task: Any = current) -> None:
                progress.update(task, description=what, completed=made, total=of)

            def on_preview(one: Preview, task: Any = previews) -> None:
                del one
                progress.advance(task)

            found = tune_settings(
                pipe,
                image,
                settings,
                noise,
                target=target,
                fidelity=least,
                lowest=bottom,
                budget=budget,
                preview_steps=preview_steps,
                full=True,
                on_step=on_step,
                on_preview=on_preview,
            )
            progress.remove_task(current)
            progress.remove_task(previews)
            about = {
                "title": f"{photo.name}: start {found.start}",
                "seed": seed,
                "init": init,
                "mode": mode,
                "strategies": settings.record["strategies"],
                "budget": budget,
                "preview_steps": fewer,
                "lowest": str(bottom),
                "photo": {
                    "file": str(photo),
                    "sha256": hashlib.sha256(photo.read_bytes()).hexdigest(),
                    "size": list(image.size),
                    "notes": image.info["notes"],
                },
                "model": {"name": spec.name, "source": spec.source, "revision": spec.revision, "moments": spec.moments},
                **placed.record,
                "settings": dict(settings.arguments),
                "device": str(pipe.device),
                "dtype": str(pipe.dtype).removeprefix("torch."),
                "versions": versions(),
                "reproduce": command_line(context, inputs=[str(photo)], out=out),
            }
            found = replace(found, about=about)
            shown = found.save(folder, overwrite=overwrite)
            terminal.note(repr(found))
            if found.check:
                terminal.note(found.check)
            terminal.line(f"{photo}: {found.reason}")
            terminal.line(str(shown))
            done.append({"page": str(shown), **found.record})
            progress.advance(overall)
    terminal.json({"tuned": done, "failed": failed})
    return WRONG_INPUT if failed else 0
