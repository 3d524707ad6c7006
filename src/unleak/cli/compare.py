"""`unleak compare`: fixes and models side by side on the same photos and noise, as one page."""

import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unleak.cli.options import parse_guidance, parse_size, refuse_empty
from unleak.cli.sweep import command_line
from unleak.cli.terminal import Terminal

if TYPE_CHECKING:  # this module is imported for `unleak --help`, which needs none of these
    from unleak.evaluate.compare import Case
    from unleak.zoo.registry import ModelSpec
    from unleak.zoo.sample import Settings

# What a command is really given; in a private module, and not the same one in every version of typer.
_Context: Any = typer.Context.__base__


def compare(
    context: _Context,
    inputs: Annotated[list[str], typer.Argument(metavar="PHOTO...", help="Photos: files, folders, patterns.")],
    case: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'LABEL: NAME=VALUE ...'",
            help="A way to make the videos, of model, start, init, mode, motion, guidance, steps, low-pass, "
            "condition-noise, guidance-interval; repeatable.",
        ),
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="START,START,...", help="A case for each start: 1.00T,0.94T,0.90T, ...")
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(metavar="MODEL,MODEL,...", help="A case for each model, as for a grid of checkpoints."),
    ] = None,
    model: Annotated[str, typer.Option(help="Of cases that name none.")] = "nano",
    out: Annotated[Path | None, typer.Option(help="Folder for the page and all it shows; out/PHOTO-compare.")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Noises for each photo.")] = 1,
    seed: Annotated[int, typer.Option(min=0, max=2**63, help="Of the first noise, the same for every case.")] = 0,
    show: Annotated[int, typer.Option(min=1, max=100, help="Pairs of photo and noise on the page.")] = 4,
    num_frames: Annotated[int | None, typer.Option(min=2, max=10_000, help="Frames of each video.")] = None,
    fps: Annotated[
        float | None, typer.Option(min=1, max=240, help="Frames a second; models that ask are told.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, max=10_000, help="Denoising steps.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Width and height, such as 1024x576.")] = None,
    guidance: Annotated[
        str | None, typer.Option(metavar="SCALE[:MAX]", help="Guidance; for SVD at the first and at the last frame.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="What happens in the video, for models that read.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older comparison.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; by default the accelerator.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, float16 or bfloat16.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say results and failures only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything; load no model, write nothing.")] = False,
) -> None:
    """Compare fixes, starts and models: the same photos and noise, every video measured, one page to look at.

    Without --case, --start and --models: the plain model, the start recommended for it, that with Analytic-Init, and
    the rivals the model allows. A grid of starts is --start 1.00T,0.94T,0.90T,0.86T,0.82T; one of training knobs is
    --models with the folder of each checkpoint.
    """
    from unleak.data.folder import find_images
    from unleak.data.image import load_image

    terminal = Terminal(quiet, as_json)
    refuse_empty(model=model, start=start, models=models)
    photos = find_images(inputs)
    images = [load_image(photo) for photo in photos]
    out = out or Path("out") / f"{photos[0].stem}-compare"
    if seed + seeds > 2**63:
        raise ValueError(f"--seed {seed} and {seeds} noises go beyond 2^63; give a lower --seed")
    width, height = parse_size(size)
    low, high = parse_guidance(guidance)

    from unleak.evaluate.compare import RECORD, Case, Comparison, Made

    try:
        from unleak.evaluate.sweep import check_measurable, check_replaceable, versions

        check_measurable()
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from error
    from unleak.data.atomic import check_writable
    from unleak.zoo.hub import load, pick_device, pick_dtype
    from unleak.zoo.memory import advising
    from unleak.zoo.registry import find_model
    from unleak.zoo.sample import Settings, check_init, initial_noise, sample, size_of

    cases = [Case.parse(text) for text in case or []]
    cases += [Case(f"start {text}", start=text) for text in _list("start", start)]
    cases += [Case(Path(text).name, model=text) for text in _list("models", models)]
    cases = cases or _usual(find_model(model))
    if twice := next((one.label for k, one in enumerate(cases) if one.label in [x.label for x in cases[:k]]), None):
        raise ValueError(f"two cases are called {twice}; give each a label of its own, --case 'LABEL: ...'")

    def planned(one: Case) -> Planned:
        spec = find_model(one.model or model)
        own_low, own_high = parse_guidance(one.guidance) if one.guidance else (low, high)
        settings = Settings.for_model(
            spec,
            height=height,
            width=width,
            num_frames=num_frames,
            fps=fps,
            steps=one.steps or steps,
            min_guidance=own_low,
            max_guidance=own_high,
            prompt=prompt,
            start=one.start or (None if one.motion else "1.0T"),
            init=one.init,
            mode=one.mode,
            motion=one.motion,
            seed=seed,
        )
        check_init(settings.init, spec, **size_of(settings))
        return Planned(one, spec, settings, one.strategies)

    plans = [planned(one) for one in cases]
    for name in ("num_frames", "fps"):
        found = {plan.case.label: getattr(plan.settings, name) for plan in plans}
        if len(set(found.values())) > 1:
            said = ", ".join(f"{label}: {value}" for label, value in found.items())
            raise ValueError(
                f"the videos of the cases differ in {name} ({said}) and would not play side by side; give"
                f" --{name.replace('_', '-')}"
            )
    picked = pick_device(device)
    pick_dtype(dtype, picked)
    check_replaceable(out, overwrite=overwrite, record=RECORD)
    for plan in plans:
        terminal.note(f"{plan.case.label}: {plan.spec.name}, start {plan.settings.level(plan.spec)['text']}")
    if dry_run:
        terminal.line(f"{len(photos)} photos -> {out / 'index.html'}")
        terminal.json({"planned": str(out / "index.html"), "cases": [vars(one) for one in cases]})
        return
    check_writable(out.parent)

    made: dict[tuple[int, int, int], Made] = {}
    with terminal.progress() as progress:
        task = progress.add_task("videos", total=len(plans) * len(photos) * seeds)
        for name in dict.fromkeys(plan.spec.name for plan in plans):
            of_model = [(k, plan) for k, plan in enumerate(plans) if plan.spec.name == name]
            first = of_model[0][1]
            with advising(first.spec, first.settings, picked, offload="none", vae_tiling=False):
                pipe = load(first.spec, device=picked, dtype=dtype, say=terminal.note)
                pipe.set_progress_bar_config(disable=True)
                for k, plan in of_model:
                    noise = initial_noise(plan.settings.init, plan.spec, **size_of(plan.settings))
                    for photo, image in enumerate(images):
                        for number in range(seed, seed + seeds):
                            began = time.monotonic()
                            settings = replace(plan.settings, seed=number)
                            video = sample(pipe, image, settings, noise, strategies=plan.strategies)
                            made[photo, number, k] = Made.measured(
                                k,
                                photo,
                                number,
                                level=video.record["start"],
                                sigmas=video.record["sigmas"],
                                frames=video.frames,
                                image=_seen(image, video.frames),
                                seconds=time.monotonic() - began,
                            )
                            progress.advance(task)
            del pipe
    about = {
        "title": f"{photos[0].name}: {len(cases)} cases" if len(photos) == 1 else f"{len(cases)} cases",
        "seed": seed,
        "seeds": seeds,
        "device": str(picked),
        "versions": versions(),
        "reproduce": command_line(context, out=out),
    }
    done = Comparison(
        [plan.record for plan in plans],
        [
            {"file": str(photo), "sha256": hashlib.sha256(photo.read_bytes()).hexdigest(), "notes": image.info["notes"]}
            for photo, image in zip(photos, images, strict=True)
        ],
        [made[place] for place in sorted(made)],
        plans[0].settings.fps,
        about,
    )
    saved = done.save(out, shown=show)
    record = done.record
    for one in record["cases"]:
        terminal.note(
            f"{one['label']}: motion {one['motion']['value']:.1f}, first frame {one['first_frame']['value']:.1f} dB"
        )
    terminal.line(str(saved))
    terminal.json({"page": str(saved), **record})


@dataclass(frozen=True)
class Planned:
    """A case, checked."""

    case: "Case"
    spec: "ModelSpec"
    settings: "Settings"
    strategies: tuple[Any, ...]

    @property
    def record(self) -> dict[str, Any]:
        """How its videos are made, as plain values."""
        return {
            "label": self.case.label,
            "model": {"name": self.spec.name, "source": self.spec.source, "revision": self.spec.revision},
            "start": self.settings.start or f"motion {self.settings.motion}",
            "level": self.settings.level(self.spec)["text"],
            "init": self.settings.init,
            "mode": self.settings.mode,
            "strategies": [repr(one) for one in self.strategies],
            "arguments": dict(self.settings.arguments),
        }


def _list(option: str, text: str | None) -> list[str]:
    if text is None:
        return []
    found = [one.strip() for one in text.split(",") if one.strip()]
    if not found:
        raise ValueError(f"--{option} {text!r}: give one or more, with commas between them")
    return found


def _usual(spec: "ModelSpec") -> "list[Case]":
    from unleak.evaluate.compare import default_cases
    from unleak.zoo.call import Call
    from unleak.zoo.classes import pipeline_class, seam_of_class
    from unleak.zoo.sample import Settings

    pipeline = pipeline_class(spec.pipeline)
    seam, call = seam_of_class(pipeline), Call.of(pipeline)
    return default_cases(
        start=Settings.for_model(spec).start,
        analytic=spec.moments is not None and seam.layout is not None,
        guided=call.name("guidance") is not None or call.name("max_guidance") is not None,
        low_pass=seam.condition is not None and seam.branches is not None,
        timenoise="nano-timenoise" if spec.name == "nano" else None,
    )


def _seen(image: Any, frames: Any) -> Any:
    """The photo as the model was shown it."""
    import numpy as np

    from unleak.data.image import fit_image

    return np.asarray(fit_image(image, frames.shape[1], frames.shape[2]).convert("RGB"))
