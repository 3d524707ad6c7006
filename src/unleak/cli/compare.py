"""`unleak compare`: fixes and models side by side on the same photos and noise, as one page."""

import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unleak.cli.errors import refuse_unmeasurable
from unleak.cli.options import (
    DryRunOption,
    FpsOption,
    FramesOption,
    GuidanceOption,
    JsonOption,
    NegativePromptOption,
    NoiseAugOption,
    OthersOption,
    PromptOption,
    QuietOption,
    SizeOption,
    StepsOption,
    choose_prompts,
    command_line,
    parse_guidance,
    parse_size,
    refuse_empty,
)
from unleak.cli.placement import DeviceOption, DtypeOption, LoraOption, OffloadOption, Placement, TilingOption
from unleak.cli.terminal import Terminal

if TYPE_CHECKING:  # this module is imported for `unleak --help`, which needs none of these
    from unleak.animate.settings import Settings
    from unleak.data.lists import Entry
    from unleak.study.compare import Case
    from unleak.zoo.registry import ModelSpec

# What a command is really given; in a private module, and not the same one in every version of typer.
_Context: Any = typer.Context.__base__


def compare(
    context: _Context,
    inputs: Annotated[list[str], typer.Argument(metavar="PHOTO...", help="Photos: files, folders, patterns, lists.")],
    case: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'LABEL: NAME=VALUE ...'",
            help="A way to make the videos, of model, start, init, mode, motion, guidance, steps, low-pass, "
            "condition-noise, guidance-interval, lora; repeatable.",
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
    num_frames: FramesOption = None,
    fps: FpsOption = None,
    steps: StepsOption = None,
    size: SizeOption = None,
    guidance: GuidanceOption = None,
    prompt: PromptOption = None,
    prompts: Annotated[Path | None, typer.Option(metavar="FILE", help="A line for each photo, in their order.")] = None,
    negative_prompt: NegativePromptOption = None,
    mask: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where things move, white on black, for models that ask.")
    ] = None,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Let lists name photos outside their own folder.")
    ] = False,
    noise_aug: NoiseAugOption = None,
    others: OthersOption = None,
    lora: LoraOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older comparison.")] = False,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    offload: OffloadOption = "none",
    vae_tiling: TilingOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Compare fixes, starts and models: the same photos and noise, every video measured, one page to look at.

    Without --case, --start and --models: the plain model, the start recommended for it, that with Analytic-Init, and
    the rivals the model allows. A grid of starts is --start 1.00T,0.94T,0.90T,0.86T,0.82T; one of training knobs is
    --models with the folder of each checkpoint. --lora is added for every case, the lora of a case for that one alone.
    """
    from unleak.data.image import load_image
    from unleak.data.lists import find_entries
    from unleak.data.mask import load_mask

    terminal = Terminal(quiet, as_json)
    refuse_empty(model=model, start=start, models=models)
    asked = prompt is not None or prompts is not None
    entries = find_entries(inputs, allow_outside=allow_outside, prompt_folders=not asked)
    texts = choose_prompts(entries, prompts, prompt)
    photos = [entry.photo for entry in entries]
    images = [load_image(photo) for photo in photos]
    drawn = [entry.mask or mask for entry in entries]
    masks = [None if path is None else load_mask(path) for path in drawn]
    out = out or Path("out") / f"{photos[0].stem}-compare"
    if seed + seeds + max(entry.seed or 0 for entry in entries) > 2**63:
        raise ValueError(f"--seed {seed} and {seeds} noises go beyond 2^63; give a lower --seed")
    width, height = parse_size(size)
    guided = parse_guidance(guidance)

    from unleak.study.compare import RECORD, Case, Comparison, Made

    refuse_unmeasurable()
    from unleak.animate.call import Call
    from unleak.animate.memory import advising
    from unleak.animate.noise import check_init, initial_noise
    from unleak.animate.record import versions
    from unleak.animate.sample import check_mask, sample
    from unleak.animate.settings import Settings
    from unleak.data.atomic import check_writable
    from unleak.study.place import check_replaceable
    from unleak.zoo.classes import pipeline_class
    from unleak.zoo.hub import pick_device
    from unleak.zoo.registry import find_model

    cases = [Case.parse(text) for text in case or []]
    cases += [Case(f"start {text}", start=text) for text in _list("start", start)]
    cases += [Case(label, model=text) for label, text in _labelled(_list("models", models))]
    cases = cases or _usual(find_model(model))
    if twice := next((one.label for k, one in enumerate(cases) if one.label in [x.label for x in cases[:k]]), None):
        raise ValueError(f"two cases are called {twice}; give each a label of its own, --case 'LABEL: ...'")

    def planned(one: Case) -> Planned:
        spec = find_model(one.model or model)
        call = Call.of(pipeline_class(spec.pipeline))
        reads = call.name("prompt") is not None
        settings = Settings.for_model(
            spec,
            height=height,
            width=width,
            num_frames=num_frames,
            fps=fps,
            steps=one.steps or steps,
            guidance=parse_guidance(one.guidance) if one.guidance else guided,
            noise_aug_strength=noise_aug,
            prompt=next((text for text in texts if text is not None), prompt) if reads else None,
            negative_prompt=negative_prompt,
            others=others or (),
            start=one.start or (None if one.motion else "1.0T"),
            init=one.init,
            mode=one.mode,
            motion=one.motion,
            seed=seed,
            strategies=one.strategies,
        )
        check_init(settings, spec)
        for image, drawing in zip(images, masks, strict=True):
            if drawing is not None:
                check_mask(call, drawing, image)
        placed = Placement.of(dtype, offload, vae_tiling, [*(lora or []), *one.loras])
        placed.check(spec, picked)
        return Planned(one, spec, settings, placed, reads)

    picked = pick_device(device)
    plans = [planned(one) for one in cases]
    for name in ("num_frames", "fps"):
        found = {plan.case.label: getattr(plan.settings, name) for plan in plans}
        if len(set(found.values())) > 1:
            said = ", ".join(f"{label}: {value}" for label, value in found.items())
            raise ValueError(
                f"the videos of the cases differ in {name} ({said}) and would not play side by side; give"
                f" --{name.replace('_', '-')}"
            )
    if asked or any(text is not None for text in texts):
        deaf = [plan.case.label for plan in plans if not plan.reads]
        if asked and len(deaf) == len(plans):
            raise ValueError(f"--{'prompt' if prompts is None else 'prompts'}: {plans[0].spec.name} reads no prompts")
        if deaf:
            terminal.note(f"no prompts are read by the models of: {', '.join(deaf)}")
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
        for loaded in dict.fromkeys(plan.loaded for plan in plans):
            of_model = [(k, plan) for k, plan in enumerate(plans) if plan.loaded == loaded]
            first = of_model[0][1]
            with advising(first.spec, first.settings, picked, offload=offload, vae_tiling=vae_tiling):
                pipe = first.placement.load(first.spec, picked, terminal)
                for k, plan in of_model:
                    noise = initial_noise(plan.settings, plan.spec)
                    for photo, image in enumerate(images):
                        first_seed = seed + (entries[photo].seed or 0)
                        for number in range(first_seed, first_seed + seeds):
                            began = time.monotonic()
                            settings = plan.settings.prompted(texts[photo] if plan.reads else None)
                            video = sample(
                                pipe,
                                image,
                                replace(settings, seed=number),
                                noise,
                                mask=masks[photo],
                            )
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
            _about(entry, image, text, path)
            for entry, image, text, path in zip(entries, images, texts, drawn, strict=True)
        ],
        [made[place] for place in sorted(made)],
        plans[0].settings.fps,
        about,
    )
    saved = done.save(out, shown=show)
    record = done.record
    for one in record["cases"]:
        terminal.note(
            f"{one['label']}: motion {one['motion_score']['value']:.1f},"
            f" first frame {one['first_frame_psnr']['value']:.1f} dB"
        )
    terminal.line(str(saved))
    terminal.json({"page": str(saved), **record})


@dataclass(frozen=True)
class Planned:
    """A case, checked."""

    case: "Case"
    spec: "ModelSpec"
    settings: "Settings"
    placement: Placement
    reads: bool
    """Whether it takes prompts."""

    @property
    def loaded(self) -> tuple[Any, ...]:
        """What is loaded for it: cases with the same share a pipeline. Names are not enough, folders have any."""
        return self.spec.source, self.spec.revision, self.spec.name, self.placement

    @property
    def record(self) -> dict[str, Any]:
        """How its videos are made, as plain values."""
        return {
            "label": self.case.label,
            "model": {"name": self.spec.name, "source": self.spec.source, "revision": self.spec.revision},
            "start": str(self.settings.start or "") or f"motion {self.settings.motion}",
            "level": self.settings.level(self.spec)["text"],
            "init": self.settings.init,
            "mode": self.settings.mode,
            "strategies": [repr(one) for one in self.settings.strategies],
            **self.placement.record,
            "arguments": dict(self.settings.arguments),
        }


def _list(option: str, text: str | None) -> list[str]:
    if text is None:
        return []
    found = [one.strip() for one in text.split(",") if one.strip()]
    if not found:
        raise ValueError(f"--{option} {text!r}: give one or more, with commas between them")
    return found


def _labelled(models: list[str]) -> list[tuple[str, str]]:
    """A label for each: as much of the end of its path as tells it from the others."""
    for parts in range(1, max((len(Path(text).parts) for text in models), default=0) + 1):
        labels = ["/".join(Path(text).parts[-parts:]) for text in models]
        if len(set(labels)) == len(set(models)):
            return list(zip(labels, models, strict=True))
    return [(text, text) for text in models]


def _about(entry: "Entry", image: Any, prompt: str | None, mask: Path | None) -> dict[str, Any]:
    """A photo, as plain values."""
    sha256 = hashlib.sha256(entry.photo.read_bytes()).hexdigest()
    found = {"file": str(entry.photo), "sha256": sha256, "notes": image.info["notes"]}
    given = {"prompt": prompt, "mask": None if mask is None else str(mask)}
    return found | {name: value for name, value in given.items() if value is not None}


def _usual(spec: "ModelSpec") -> "list[Case]":
    from unleak.animate.call import Call
    from unleak.animate.settings import Settings
    from unleak.study.compare import default_cases
    from unleak.zoo.classes import pipeline_class, seam_of_class

    pipeline = pipeline_class(spec.pipeline)
    seam, call = seam_of_class(pipeline), Call.of(pipeline)
    return default_cases(
        start=str(Settings.for_model(spec).start or "") or None,
        analytic=spec.moments is not None and seam.layout is not None,
        guided=call.name("guidance") is not None or call.name("max_guidance") is not None,
        low_pass=seam.condition is not None and seam.branches is not None,
        timenoise=_trained_with_timenoise(spec),
    )


def _trained_with_timenoise(spec: "ModelSpec") -> str | None:
    """The listed checkpoint of the same model, asked for the same videos, that was trained with TimeNoise."""
    from unleak.families.registry import MODELS

    twins = (MODELS.get(f"{spec.name}-{ending}") for ending in ("timenoise", "cil"))
    return next((twin.name for twin in twins if twin is not None and twin.defaults == spec.defaults), None)


def _seen(image: Any, frames: Any) -> Any:
    """The photo as the model was shown it."""
    import numpy as np

    from unleak.data.image import fit_image

    return np.asarray(fit_image(image, frames.shape[1], frames.shape[2]).convert("RGB"))
