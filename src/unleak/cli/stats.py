"""`unleak stats`: moments of a model's latents over a folder of videos, for Analytic-Init."""

import json
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

import typer

from unleak import __version__
from unleak.cli.options import parse_size
from unleak.cli.terminal import Terminal


def stats(
    out: Annotated[Path, typer.Option(help="The file to write, FILE.safetensors; FILE.json says how it was made.")],
    videos: Annotated[list[str] | None, typer.Option(help="Folder, file or pattern of videos; repeatable.")] = None,
    merge: Annotated[list[Path] | None, typer.Option(help="A file of an earlier run to add; repeatable.")] = None,
    model: Annotated[str, typer.Option(help="nano, svd, svd-xt, a folder, or a Hub id.")] = "nano",
    num_frames: Annotated[int | None, typer.Option(min=1, help="Frames of a clip.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Width and height of a clip.")] = None,
    fps: Annotated[float | None, typer.Option(min=0.1, max=240, help="Frame rate of a clip.")] = None,
    clips_per_video: Annotated[int, typer.Option(min=1, help="Clips from each video, at random places.")] = 1,
    max_clips: Annotated[int | None, typer.Option(min=1, help="Stop after so many clips.")] = None,
    max_failures: Annotated[
        float, typer.Option(min=0, max=1, help="Share of unusable videos that is too much.")
    ] = 0.05,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips encoded at once.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Decides which clips are taken.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE if it exists.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; by default the accelerator.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, float16 or bfloat16.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say results and failures only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Gather the moments that --init analytic needs, from videos of any size, rate and length.

    With --merge the counts of earlier runs are added; with --merge alone nothing is encoded.
    """
    from unleak.data.folder import find_videos
    from unleak.zoo.registry import find_model

    terminal = Terminal(quiet, as_json)
    if not videos and not merge:
        raise ValueError("nothing to do; give --videos DIR, or --merge FILE twice")
    if out.suffix != ".safetensors":
        raise ValueError(f"--out {out}: give a name that ends in .safetensors")
    report = out.with_suffix(".json")
    for path in (out, report):
        if path.exists() and not overwrite:
            raise ValueError(f"{path} exists; give --overwrite, another --out, or --merge {out} to add to it")
    width, height = parse_size(size)
    found = find_videos(videos or [])
    spec = find_model(model)

    from unleak.core.moments import LatentMoments
    from unleak.data.atomic import check_writable, written_whole
    from unleak.stats.estimate import estimate
    from unleak.zoo.hub import load
    from unleak.zoo.sample import Settings

    merged = [LatentMoments.load(path) for path in merge or []]
    total = reduce(LatentMoments.merge, merged) if merged else None
    about: dict[str, Any] = {"unleak": __version__, "merged": [str(path) for path in merge or []]}
    usual = Settings.for_model(spec, height=height, width=width, num_frames=num_frames) if found else None
    check_writable(out.parent)
    if usual is not None:
        settings: dict[str, Any] = {
            "num_frames": usual.num_frames,
            "height": usual.height,
            "width": usual.width,
            "fps": fps or usual.fps,
            "clips_per_video": clips_per_video,
            "max_clips": max_clips,
            "max_failures": max_failures,
            "batch_size": batch_size,
            "seed": seed,
        }
        pipe = load(spec, device=device, dtype=dtype, only=("vae",))
        with terminal.progress() as progress:
            task = progress.add_task("videos", total=len(found))

            def on_video(reason: str | None) -> None:
                progress.advance(task)
                if reason:
                    terminal.failure(f"skipped {reason}")

            source = ", ".join(map(str, videos or []))
            done = estimate(pipe, found, **settings, model=spec.name, source=source, onto=total, on_video=on_video)
        total = done.moments
        about |= {"model": spec.name, "videos": len(found), "clips": done.clips, "settings": settings}
        about["skipped"] = [{"video": str(path), "reason": reason} for path, reason in done.skipped.items()]
    assert total is not None
    about |= {"count": total.count, "shape": list(total.shape), "isotropic_variance": total.isotropic_variance}
    with written_whole(report) as temporary:
        temporary.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        total.save(out)
    terminal.line(f"{out}: moments of {total.count} clips, tr(Cov)/d = {total.isotropic_variance:.4g}")
    terminal.json({"file": str(out), **about})
