"""`unleak diagnose`: does this model lose motion to its image, or is something else the cause?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unleak.cli.options import parse_guidance, parse_size, refuse_empty
from unleak.cli.sweep import command_line
from unleak.cli.terminal import Terminal

if TYPE_CHECKING:  # this module is imported for `unleak --help`, which needs none of these
    from unleak.evaluate.leakage import Scenes

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
    model: Annotated[str, typer.Option(help="A name that `unleak models` lists, a folder, or a Hub id.")] = "nano",
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
    others: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Another argument of the pipeline; repeatable."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=256, help="Clips at once.")] = 4,
    seconds_per_video: Annotated[float, typer.Option(help="Time to read a clip before its video is skipped.")] = 60.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older diagnosis.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; by default the accelerator.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, float16 or bfloat16.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say results and failures only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
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
    low, high = parse_guidance(guidance)
    out = out or Path("out") / f"{Path(spec.name).name}-diagnosis"

    from unleak.data.atomic import check_writable
    from unleak.evaluate.leakage import RECORD, STARTS
    from unleak.evaluate.probe import check_probed
    from unleak.zoo.sample import Settings

    check_probed(spec.pipeline)
    try:
        from unleak.evaluate.sweep import check_measurable, check_replaceable, versions

        check_measurable()
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from error
    check_replaceable(out, overwrite=overwrite, record=RECORD)
    settings = Settings.for_model(
        spec,
        height=height,
        width=width,
        num_frames=num_frames,
        fps=fps,
        steps=steps,
        min_guidance=low,
        max_guidance=high,
        prompt=prompt,
        others=others or (),
        start="1.0T",
        seed=seed,
    )
    if None in (settings.num_frames, settings.height, settings.width):
        raise ValueError(f"{spec.name} has no size of its own; give --num-frames and --size")

    starts = [text.strip() for text in start.split(",") if text.strip()] if start else list(STARTS)
    if not starts:
        raise ValueError(f"--start {start}: give one start or more, such as 0.94T,0.86T")
    if twice := next((text for text in starts if starts.count(text) > 1), None):
        raise ValueError(f"--start {start}: {twice} is given twice")
    for text in starts:
        Settings.for_model(spec, start=text)
    check_writable(out.parent)

    scenes: Scenes | None = None
    rate = fps or settings.fps
    if photos is not None:
        frames, scenes = _known(photos, clips, settings, seed)
    else:
        frames = _read(found, clips, settings, rate, seconds_per_video, terminal)
    told = dict(settings.arguments)
    about = {
        "model": {"name": spec.name, "source": spec.source, "revision": spec.revision, "pipeline": spec.pipeline},
        "settings": told,
        "fps": rate,
        "source": str(photos) if photos else ", ".join(videos or []),
        "known_motion": photos is not None,
        "reproduce": command_line(context, out=out),
        "versions": versions(),
    }

    from unleak.evaluate.leakage import STILL, diagnose, videos_of
    from unleak.evaluate.probe import probe_of
    from unleak.evaluate.stillness import causes
    from unleak.zoo.call import Call
    from unleak.zoo.classes import pipeline_class
    from unleak.zoo.hub import load, pick_device
    from unleak.zoo.sample import sample

    pipe = load(spec, device=pick_device(device), dtype=dtype, say=terminal.note)
    pipe.set_progress_bar_config(disable=True)

    def generate(image: Any, seed: int) -> Any:
        from dataclasses import replace

        from PIL import Image

        return sample(pipe, Image.fromarray(image), replace(settings, seed=seed)).frames

    with terminal.progress() as progress:
        total = videos_of(len(frames), starts=len(starts), seeds=seeds, oracle=scenes is not None, pipeline=True)
        task = progress.add_task("videos", total=total)
        done = diagnose(
            probe_of(pipe, told),
            frames,
            starts=starts,
            steps=settings.steps,
            seeds=seeds,
            seed=seed,
            batch_size=batch_size,
            scenes=scenes,
            generate=generate,
            on_video=lambda: progress.advance(task),
            about=about,
        )
    usual = {name: one.default for name, one in Call.of(pipeline_class(spec.pipeline)).parameters.items()}
    amounts = [done.mean(test, "image", of="amount") for test in ("pipeline", "fresh")]
    other = causes(
        pipe,
        told,
        usual | dict(spec.defaults),
        motion=done.motion,
        still_below=STILL,
        fps=None if photos else rate,
        steps=settings.steps,
        pipeline_amount=amounts[0].value if amounts[0] else None,
        unguided_amount=amounts[1].value if amounts[1] else None,
    )
    done.about["other_causes"] = [vars(cause) for cause in other]
    saved = done.save(out)
    verdict = done.verdict
    for sentence in verdict.sentences:
        terminal.line(sentence)
    for cause in other:
        if cause.state == "suspect":
            terminal.line(f"Look also at {cause.name}: {cause.text}.")
    terminal.line(str(saved))
    terminal.json({"file": str(saved), **done.record})


def _read(found: list[Path], clips: int, settings: Any, fps: float, seconds: float, terminal: Terminal) -> Any:
    """Clips of the first `clips` videos that can be read."""
    from contextlib import closing

    import numpy as np

    from unleak.data.decode_worker import ClipRequest, Decoding, default_workers, read_clips
    from unleak.data.image import MediaError

    size = settings.height, settings.width
    requests = (ClipRequest(path, settings.num_frames, fps, size) for path in found)
    frames = []
    with closing(read_clips(requests, decoding=Decoding(default_workers(), seconds))) as outcomes:
        for outcome in outcomes:
            if isinstance(outcome, MediaError):
                terminal.failure(f"skipped {outcome}")
            elif outcome is not None:
                frames.append(outcome.frames)
            if len(frames) == clips:
                break
    if not frames:
        raise ValueError("none of the videos can be used; see the reasons above")
    return np.stack(frames)


def _known(photos: Path, clips: int, settings: Any, seed: int) -> "tuple[Any, Scenes]":
    """Clips that pan right or left by 1/64 of their width a frame, as nano's law has it, and all that they could be."""
    import numpy as np

    from unleak.data.synthetic import Motion, SyntheticClips
    from unleak.evaluate.leakage import Scenes

    side = max(settings.height, settings.width)
    speed = settings.width / 64
    law = [(Motion(speed), 0.2), (Motion(-speed), 0.2), (Motion(), 0.6)]
    made = SyntheticClips(photos, size=side, num_frames=settings.num_frames, seed=seed, length=clips)
    top, left = (side - settings.height) // 2, (side - settings.width) // 2
    cut = slice(top, top + settings.height), slice(left, left + settings.width)
    scenes = [made.alternatives(k, [camera for camera, _ in law]).numpy()[:, :, *cut] for k in range(clips)]
    alternatives = np.ascontiguousarray(np.stack(scenes))
    truth = np.stack([scene[k % 2] for k, scene in enumerate(alternatives)])
    return truth, Scenes(alternatives, np.array([share for _, share in law]))
