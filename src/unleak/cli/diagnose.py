"""`unleak diagnose`: does this model lose motion to its image, or is something else the cause?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unleak.cli.errors import refuse_unmeasurable
from unleak.cli.options import (
    JsonOption,
    ModelOption,
    NoiseAugOption,
    OthersOption,
    QuietOption,
    command_line,
    parse_guidance,
    parse_size,
    refuse_empty,
)
from unleak.cli.placement import DeviceOption, DtypeOption, LoraOption, OffloadOption, Placement, TilingOption
from unleak.cli.terminal import Terminal

if TYPE_CHECKING:  # this module is imported for `unleak --help`, which needs none of these
    from unleak.study.diagnose.leakage import Scenes

# What a command is really given; in a private module, and not the same one in every version of typer.
_Context: Any = typer.Context.__base__


def diagnose(
    context: _Context,
    videos: Annotated[
        list[str] | None, typer.Option(help="Folder, file or pattern of real videos that move; repeatable.")
    ] = None,
    photos: Annotated[
        Path | None, typer.Option(help="Folder of photos to make clips of known motion of: adds the oracle.")
    ] = None,
    model: ModelOption = "nano",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the picture, the table and the JSON; out/MODEL-diagnosis.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="START,START,...", help="Levels to restart from: 0.94T,0.86T, sigma=100, ...")
    ] = None,
    clips: Annotated[int, typer.Option(min=1, max=10_000, help="Take this many clips.")] = 8,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Noises for each clip.")] = 2,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Of the first noise.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, max=1000, help="Denoising steps below each start.")] = None,
    num_frames: Annotated[int | None, typer.Option(min=2, max=10_000, help="Frames of a clip.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Width and height of a clip.")] = None,
    fps: Annotated[float | None, typer.Option(min=0.1, max=240, help="Frame rate of a clip.")] = None,
    guidance: Annotated[
        str | None, typer.Option(metavar="SCALE[:MAX]", help="Guidance of the pipeline's own videos.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="What happens in the clips, for models that read.")] = None,
    negative_prompt: Annotated[
        str | None, typer.Option(help="What should not happen in the pipeline's own videos.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where all clips move, white on black, for models that ask.")
    ] = None,
    noise_aug: NoiseAugOption = None,
    others: OthersOption = None,
    lora: LoraOption = None,
    batch_size: Annotated[int, typer.Option(min=1, max=256, help="Clips at once.")] = 4,
    seconds_per_video: Annotated[float, typer.Option(help="Time to read a clip before its video is skipped.")] = 60.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older diagnosis.")] = False,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    offload: OffloadOption = "none",
    vae_tiling: TilingOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Tell whether a model loses motion to its image (conditional image leakage), and from which noise level on.

    Clips that move are noised and sampled on from there, with their first frame and without it: motion that can still
    be seen in the noise has to come back. Settings that make videos stand still, too, are checked beside it.
    """
    from unleak.data.folder import find_videos
    from unleak.zoo.registry import find_model

    terminal = Terminal(quiet, as_json)
    refuse_empty(model=model, start=start)
    if bool(videos) == (photos is not None):
        raise ValueError(
            "give --videos DIR (real clips that move) or --photos DIR (to make clips of known motion), one of them"
        )
    if photos is not None and not photos.is_dir():
        raise ValueError(f"--photos {photos}: no such folder; give one that holds photos")
    found = find_videos(videos or [])
    spec = find_model(model)
    width, height = parse_size(size)
    out = out or Path("out") / f"{Path(spec.name).name}-diagnosis"

    from unleak.animate.call import Call
    from unleak.animate.memory import advising
    from unleak.animate.sample import Settings, check_mask
    from unleak.data.atomic import check_writable
    from unleak.data.decode_worker import Decoding, default_workers
    from unleak.data.mask import load_mask
    from unleak.zoo.classes import pipeline_class
    from unleak.zoo.hub import pick_device

    refuse_unmeasurable()
    from unleak.study.diagnose.examine import check_examined, examine, known_clips, parse_levels, real_clips, suspects
    from unleak.study.diagnose.leakage import RECORD
    from unleak.study.sweep import check_replaceable, versions

    check_replaceable(out, overwrite=overwrite, record=RECORD)
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
        start="1.0T",
        seed=seed,
    )
    check_examined(spec, settings)
    picked, placed = pick_device(device), Placement.of(dtype, offload, vae_tiling, lora)
    placed.check(spec, picked)
    if offload in ("sequential", "group"):
        raise ValueError(f"--offload {offload}: a diagnosis runs the networks one by one; give model, or none")
    drawn = None if mask is None else load_mask(mask)
    if drawn is not None:
        check_mask(Call.of(pipeline_class(spec.pipeline)), drawn)
    starts = parse_levels(start, spec)
    check_writable(out.parent)

    scenes: Scenes | None = None
    rate = fps or settings.fps
    if photos is not None:
        frames, scenes = known_clips(photos, settings, count=clips, seed=seed)
    else:
        frames = real_clips(
            found,
            settings,
            count=clips,
            fps=rate,
            decoding=Decoding(default_workers(), seconds_per_video),
            on_skipped=lambda reason: terminal.failure(f"skipped {reason}"),
        )
    advised = advising(spec, settings, picked, offload=offload, vae_tiling=vae_tiling)
    with advised, terminal.progress() as progress:
        pipe = placed.load(spec, picked, terminal)
        task = progress.add_task("videos", total=None)
        done = examine(
            pipe,
            spec,
            settings,
            frames,
            scenes=scenes,
            mask=drawn,
            starts=starts,
            seeds=seeds,
            seed=seed,
            batch_size=batch_size,
            fps=None if photos else rate,
            on_video=lambda made, of: progress.update(task, completed=made, total=of),
            about={
                "source": str(photos) if photos else ", ".join(videos or []),
                **({} if mask is None else {"mask": str(mask)}),
                **placed.record,
                "reproduce": command_line(context, out=out),
                "versions": versions(),
            },
        )
    saved = done.save(out)
    for sentence in done.verdict.sentences:
        terminal.line(sentence)
    for cause in suspects(done):
        terminal.line(f"Look also at {cause.name}: {cause.text}.")
    terminal.line(str(saved))
    terminal.json({"file": str(saved), **done.record})
