"""`unleak generate`: photos to videos."""

import hashlib
import json
import platform
import time
import warnings
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from unleak import __version__
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
    choose_prompts,
    parse_guidance,
    parse_size,
    parse_strategies,
    refuse_empty,
)
from unleak.cli.placement import DeviceOption, DtypeOption, LoraOption, OffloadOption, Placement, TilingOption
from unleak.cli.processes import Processes, launched
from unleak.cli.terminal import Terminal

if TYPE_CHECKING:  # this module is imported for `unleak --help`, which needs none of these
    from PIL import Image

    from unleak.animate.call import Call
    from unleak.animate.sample import Settings
    from unleak.core.initial import InitialNoise
    from unleak.core.start import Start
    from unleak.study.tune.result import TargetMotion
    from unleak.zoo.registry import ModelSpec


def generate(
    inputs: Annotated[list[str], typer.Argument(metavar="PHOTO...", help="Photos: files, folders, patterns, lists.")],
    model: ModelOption = "nano",
    out: Annotated[Path, typer.Option(help="Folder for NAME.mp4 and NAME.json.")] = Path("out"),
    prompt: PromptOption = None,
    prompts: Annotated[Path | None, typer.Option(metavar="FILE", help="A line for each photo, in their order.")] = None,
    negative_prompt: NegativePromptOption = None,
    mask: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where things move, white on black, for models that ask.")
    ] = None,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Let lists name photos outside their own folder.")
    ] = False,
    seed: Annotated[
        int,
        typer.Option(min=0, max=2**64 - 1, help="The same seed gives the same video of a photo; a list's are added."),
    ] = 0,
    num_frames: FramesOption = None,
    fps: FpsOption = None,
    steps: StepsOption = None,
    size: SizeOption = None,
    start: Annotated[
        str | None,
        typer.Option(help="Where sampling starts: 940, 0.94T, sigma=100, logsnr=-5.3; 1.0T is plain; auto finds it."),
    ] = None,
    target_motion: Annotated[
        str | None, typer.Option(metavar="8px/s", help="With --start auto: speed wanted, px/s or px/frame.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=3, max=100, help="With --start auto: previews of a photo at most; 6.")
    ] = None,
    init: Annotated[str | None, typer.Option(help="Initial noise: standard, unit, analytic, or moments file.")] = None,
    mode: ModeOption = "rescale",
    motion: Annotated[
        Literal["low", "medium", "high"] | None, typer.Option(help="A preset of the model, in place of --start.")
    ] = None,
    guidance: GuidanceOption = None,
    noise_aug: NoiseAugOption = None,
    low_pass: LowPassOption = None,
    condition_noise: ConditionNoiseOption = None,
    guidance_interval: GuidanceIntervalOption = None,
    others: OthersOption = None,
    lora: LoraOption = None,
    format: Annotated[
        Literal["mp4", "gif", "webp", "png"], typer.Option(help="png is one sheet with all frames.")
    ] = "mp4",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace videos that exist.")] = False,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave out videos that exist.")] = False,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    offload: OffloadOption = "none",
    vae_tiling: TilingOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    dry_run: DryRunOption = False,
) -> int:
    """Animate photos with the leak of the model fixed. NAME.json beside each video says exactly how it was made.

    Lists ask for photos with prompts: JSON lines such as {"dir": "1.png", "text": "fireworks", "seed": 7}, a CSV with
    these columns, or a folder with a .txt file of prompts, a line for each photo by name.

    Without --start or --motion the fix recommended for the model is used; --start 1.0T gives the plain pipeline, and
    --start auto what `unleak tune` finds for each photo. Under
    `accelerate launch -m unleak generate ...` the photos are shared out over the processes.
    """
    with launched() as processes:
        terminal = Terminal(quiet or not processes.is_main, as_json)

        def check() -> "Work":
            # What needs no torch comes first: a missing photo is told at once.
            from unleak.data.atomic import check_writable
            from unleak.data.lists import find_entries
            from unleak.zoo.registry import find_model

            if overwrite and skip_existing:
                raise ValueError("--overwrite and --skip-existing exclude each other; give one of them")
            refuse_empty(model=model, start=start, init=init)
            width, height = parse_size(size)
            asked = prompt is not None or prompts is not None
            entries = find_entries(inputs, allow_outside=allow_outside, prompt_folders=not asked)
            texts = choose_prompts(entries, prompts, prompt)
            jobs = [
                Job(one.photo, out / f"{one.name or one.photo.stem}.{format}", text, one.mask or mask, one.seed)
                for one, text in zip(entries, texts, strict=True)
            ]
            if seed + max(entry.seed or 0 for entry in entries) >= 2**64:
                raise ValueError(f"--seed {seed} and those of the list go beyond 2^64; give a lower --seed")
            jobs, skipped = _without_existing(jobs, overwrite=overwrite, skip_existing=skip_existing)
            if len(jobs) == 1:
                jobs[0].load_photo([])
            spec = find_model(model)
            search = _search(start, target_motion, budget, spec)

            from unleak.animate.call import Call
            from unleak.animate.sample import Settings, check_init, initial_noise, size_of
            from unleak.zoo.classes import pipeline_class

            placed = Placement.of(dtype, offload, vae_tiling, lora)
            placed.check(spec, processes.device(device))
            call = Call.of(pipeline_class(spec.pipeline))
            for job in (job for job in jobs if job.mask):
                job.check_mask(call)
            if any(entry.prompt for entry in entries) and call.name("prompt") is None:
                terminal.note(f"{spec.name} reads no prompts: those of the list have no effect")
                jobs, texts = [replace(job, prompt=None) for job in jobs], [None] * len(texts)
            settings = Settings.for_model(
                spec,
                height=height,
                width=width,
                num_frames=num_frames,
                fps=fps,
                steps=steps,
                guidance=parse_guidance(guidance),
                noise_aug_strength=noise_aug,
                prompt=next((text for text in texts if text is not None), prompt),
                negative_prompt=negative_prompt,
                others=others or (),
                start=start if search is None else str(search.lowest),
                init=init,
                mode=mode,
                motion=motion,
                seed=seed,
                strategies=parse_strategies(low_pass, condition_noise, guidance_interval),
            )
            (check_init if dry_run else initial_noise)(settings.init, spec, **size_of(settings))
            if not dry_run:
                check_writable(out)
            return Work(spec, settings, placed, jobs, skipped, search)

        work = processes.from_main(check)
        terminal.note(_in_words(work, recommended=start is None and motion is None))
        if work.spec.caution:
            terminal.note(work.spec.caution)
        if dry_run:
            resolved = (f"{name} {value}" for name, value in work.settings.arguments.items() if value not in (None, ""))
            terminal.note(f"{', '.join(resolved)}; played at {work.settings.fps:g} frames a second")
        mine = work.share(processes) if not dry_run else work.jobs if processes.is_main else []
        outcome = _carry_out(work, mine, processes.device(device), terminal, dry_run=dry_run)
        outcomes = processes.gather(outcome)
        for error in (other.error for other in outcomes if other.error is not None):
            raise error
        order = {str(job.video): place for place, job in enumerate(work.jobs)}
        done = sorted((record for other in outcomes for record in other.done), key=lambda made: order[made["video"]])
        failed = [failure for other in outcomes for failure in other.failed]
        if processes.is_main:
            terminal.json(
                {
                    "model": asdict(work.spec),
                    "settings": work.settings.record | ({} if work.search is None else {"start": "auto"}),
                    "level": work.settings.level(work.spec) if work.search is None else None,
                    "planned" if dry_run else "videos": done,
                    "skipped": [str(job.video) for job in work.skipped],
                    "failed": failed,
                }
            )
        processes.outlive_main()
        return WRONG_INPUT if failed else 0


@dataclass(frozen=True)
class Work:
    """What was asked, checked."""

    spec: "ModelSpec"
    settings: "Settings"
    placement: Placement
    jobs: "list[Job]"
    skipped: "list[Job]"
    search: "Search | None" = None

    def share(self, processes: Processes) -> "list[Job]":
        """The jobs of this process; those that would write the same video are of one."""
        turns: dict[Path, int] = {}
        for job in self.jobs:
            turns.setdefault(job.video, len(turns))
        return [job for job in self.jobs if turns[job.video] % processes.count == processes.rank]


@dataclass(frozen=True)
class Search:
    """What to look for where the start is found for each photo."""

    target: "TargetMotion | None"
    budget: int
    lowest: "Start"


@dataclass(frozen=True)
class Outcome:
    """What came of the jobs of one process; `error` ended them."""

    done: list[dict[str, Any]]
    failed: list[dict[str, str]]
    error: ValueError | OSError | None = None


def _carry_out(work: Work, jobs: "list[Job]", device: Any, terminal: Terminal, *, dry_run: bool) -> Outcome:
    from unleak.animate.sample import initial_noise, size_of
    from unleak.data.image import MediaError

    pipe, done, failed = None, list[dict[str, Any]](), list[dict[str, str]]()
    with terminal.progress() as progress:
        photos = progress.add_task("photos", total=len(jobs), visible=len(jobs) > 1)
        for job in jobs:
            try:
                image = job.load_photo(done)
            except (MediaError, OSError) as error:  # a bad photo stops no other
                failed.append({"photo": str(job.photo), "reason": describe_error(error)})
                terminal.failure(describe_error(error))
                progress.advance(photos)
                continue
            for note in image.info["notes"]:
                terminal.note(f"{job.photo}: {note}")
            if dry_run:
                record = {"photo": str(job.photo), "video": str(job.video)}
            else:
                try:
                    if pipe is None:
                        noise = initial_noise(work.settings.init, work.spec, **size_of(work.settings))
                        pipe = _load(work, device, terminal)
                    record = _animate(pipe, job, image, work, noise, device, progress, terminal)
                except (ValueError, OSError) as error:
                    return Outcome(done, failed, error)
            done.append(record)
            terminal.line(f"{job.photo} -> {job.video}" if dry_run else str(job.video))
            progress.advance(photos)
    return Outcome(done, failed)


@dataclass(frozen=True)
class Job:
    """A photo and the video to be made of it."""

    photo: Path
    video: Path
    prompt: str | None = None
    """Its own, if photos have different ones."""
    mask: Path | None = None
    seed: int | None = None
    """Added to that of all."""

    @property
    def record(self) -> Path:
        """Where the configuration goes."""
        return self.video.with_suffix(".json")

    def record_is_of_another(self) -> bool:
        """Whether a record stands there that is somebody's own file, or of a video in another format, still there."""
        if not self.record.exists():
            return False
        try:
            video = self.video.with_name(Path(json.loads(self.record.read_text(encoding="utf-8"))["video"]).name)
        except (ValueError, KeyError, TypeError):
            return True
        return video != self.video and video.exists()

    def load_photo(self, done: list[dict[str, Any]]) -> "Image.Image":
        """The photo; MediaError if its video would replace it, or one that is among the records `done`."""
        from unleak.data.image import MediaError, load_image

        if self.video.exists() and self.video.samefile(self.photo):
            raise MediaError(f"{self.photo}: its video would replace it; choose another --out or --format")
        for record in done:
            if record["video"] == str(self.video):
                raise MediaError(f"{self.photo}: {self.video} is of another photo of that name; rename one of them")
        return load_image(self.photo)

    def load_mask(self) -> "Image.Image | None":
        """The mask, if there is one; MediaError if it cannot be read."""
        from unleak.data.mask import load_mask

        return None if self.mask is None else load_mask(self.mask)

    def check_mask(self, call: "Call") -> None:
        """ValueError for a mask that cannot be read, was not drawn on the photo, or that the pipeline cannot take."""
        from unleak.animate.sample import check_mask
        from unleak.data.image import MediaError

        try:
            photo = self.load_photo([])
        except (MediaError, OSError):  # told when its turn comes
            photo = None
        check_mask(call, self.load_mask(), photo)

    def write(self, frames: Any, record: dict[str, Any], *, fps: float) -> None:
        """Write the video and its record, both or neither."""
        from unleak.data.atomic import written_whole
        from unleak.data.video import write_video

        with written_whole(self.record) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            write_video(frames, self.video, fps=fps)


def _search(start: str | None, target: str | None, budget: int | None, spec: "ModelSpec") -> Search | None:
    """What --start auto looks for; None for any other start. ValueError for what it cannot."""
    if start is None or start.strip().lower() != "auto":
        for option, given in (("--target-motion", target), ("--budget", budget)):
            if given is not None:
                raise ValueError(f"{option} {given}: it says what --start auto looks for; give --start auto with it")
        return None
    refuse_unmeasurable()
    from unleak.study.tune.find import BUDGET, lowest_start
    from unleak.study.tune.result import TargetMotion

    return Search(None if target is None else TargetMotion.parse(target), budget or BUDGET, lowest_start(spec))


def _without_existing(jobs: list[Job], *, overwrite: bool, skip_existing: bool) -> tuple[list[Job], list[Job]]:
    """The jobs to do and those to skip."""
    for path in (path for job in jobs for path in (job.video, job.record)):
        if path.is_dir():
            raise ValueError(f"{path} is a folder, where a file is to go; choose another --out")
    if overwrite:
        return jobs, []
    existing = [job for job in jobs if job.video.exists()]
    if skip_existing:
        taken, instead = [job.record for job in jobs if job not in existing and job.record_is_of_another()], ""
    else:
        unmade = [job.record for job in jobs if job not in existing and job.record.exists()]
        taken, instead = [*(job.video for job in existing), *unmade], ", --skip-existing"
    if taken:
        more = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
        raise ValueError(f"{taken[0]}{more} exists; give --overwrite{instead} or another --out")
    return [job for job in jobs if job not in existing], existing


def _load(work: Work, device: Any, terminal: Terminal) -> Any:
    from unleak.animate.memory import advising

    placed = work.placement
    with advising(work.spec, work.settings, device, offload=placed.offload, vae_tiling=placed.vae_tiling):
        return placed.load(work.spec, device, terminal)


def _animate(
    pipe: Any,
    job: Job,
    image: "Image.Image",
    work: Work,
    noise: "InitialNoise",
    device: Any,
    progress: Any,
    terminal: Terminal,
) -> dict[str, Any]:
    from unleak.animate.memory import advising
    from unleak.animate.sample import sample
    from unleak.animate.size import swapped
    from unleak.attach.plan import UnleakWarning

    spec, settings, placement = work.spec, work.settings.prompted(job.prompt), work.placement
    settings = replace(settings, seed=settings.seed + (job.seed or 0))
    if (caution := swapped(image.size, settings.width, settings.height)) is not None:
        terminal.note(f"{job.photo}: {caution}")
    mask = job.load_mask()
    began, task = time.monotonic(), progress.add_task(job.photo.name, total=settings.steps)
    advised = advising(spec, settings, device, offload=placement.offload, vae_tiling=placement.vae_tiling)
    with warnings.catch_warnings(record=True) as caught, advised:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UnleakWarning)
        tuned = None
        if work.search is not None:
            from unleak.study.tune.find import LEAST_FIDELITY, tune_settings
            from unleak.study.tune.result import Fidelity

            def preview(what: str, done: int, of: int) -> None:
                progress.update(task, description=f"{job.photo.name}, preview from {what}", completed=done, total=of)

            tuned = tune_settings(
                pipe,
                image,
                settings,
                noise,
                target=work.search.target,
                fidelity=Fidelity.parse(LEAST_FIDELITY),
                lowest=work.search.lowest,
                budget=work.search.budget,
                mask=mask,
                on_step=preview,
            )
            settings = replace(settings, start=tuned.start)
            terminal.note(f"{job.photo}: {tuned.reason}")
            progress.update(task, description=job.photo.name, completed=0, total=settings.steps)
        made = sample(
            pipe,
            image,
            settings,
            noise,
            mask=mask,
            on_step=lambda done, of: progress.update(task, completed=done, total=of),
        )
    progress.remove_task(task)
    auto = {}
    if tuned is not None:
        tuned = tuned.completed(made.frames, made.record["start"], made.record["sigmas"])
        terminal.note(f"{job.photo}: {tuned.check}")
        auto = {"auto": tuned.summary}
    cautions = list(dict.fromkeys(str(warning.message) for warning in caught))
    masked = {} if mask is None else _masked(job, mask, made.frames, cautions)
    for caution in cautions:
        terminal.note(f"{job.photo}: {caution}")
    if settings.num_frames not in (None, len(made.frames)):
        terminal.note(f"{job.photo}: {len(made.frames)} frames, though {settings.num_frames} were asked for")
    record = {
        "photo": {
            "file": str(job.photo),
            "sha256": hashlib.sha256(job.photo.read_bytes()).hexdigest(),
            "size": list(image.size),
            "notes": image.info["notes"],
        },
        "video": str(job.video),
        **masked,
        "model": {
            "name": spec.name,
            "source": spec.source,
            "revision": spec.revision,
            "pipeline": spec.pipeline,
            "scheduler": {"class": type(pipe.scheduler).__name__, **_plain(pipe.scheduler.config)},
            "moments": spec.moments,
            "loras": [lora.record for lora in placement.loras],
        },
        **made.record,
        **auto,
        "device": str(device),
        "dtype": {name: str(part.dtype).removeprefix("torch.") for name, part in _networks(pipe).items()},
        "offload": placement.offload,
        "vae_tiling": placement.vae_tiling,
        "warnings": cautions,
        "seconds": round(time.monotonic() - began, 2),
        "versions": {"unleak": __version__, "python": platform.python_version()}
        | {name: version(name) for name in ("torch", "diffusers", "transformers")},
    }
    job.write(made.frames, record, fps=settings.fps)
    return record


def _masked(job: Job, mask: "Image.Image", frames: Any, cautions: list[str]) -> dict[str, Any]:
    """The mask, and the motion inside and outside of it; a caution where that cannot be measured."""
    from PIL import Image, ImageOps

    from unleak.families.animate_anything.mask import moving

    assert job.mask is not None
    about: dict[str, Any] = {
        "mask": {"file": str(job.mask), "sha256": hashlib.sha256(job.mask.read_bytes()).hexdigest()}
    }
    try:
        from unleak.measure.masked import masked_motion

        size = (frames.shape[2], frames.shape[1])
        fitted = moving(ImageOps.fit(mask, size, Image.Resampling.NEAREST))
        return about | {"motion": asdict(masked_motion(frames, fitted))}
    except ModuleNotFoundError as error:
        cautions.append(f"the motion inside and outside the mask is not known: {error}")
        return about | {"motion": None}


def _plain(config: Any) -> dict[str, Any]:
    """What of a configuration JSON can hold; private entries say where files lay."""
    kinds = (str, int, float, bool, list, type(None))
    return {name: value for name, value in config.items() if isinstance(value, kinds) and not name.startswith("_")}


def _networks(pipe: Any) -> dict[str, Any]:
    import torch

    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


def _in_words(work: Work, *, recommended: bool) -> str:
    spec, settings = work.spec, work.settings
    size = f"{settings.num_frames} frames" if settings.num_frames else "frames as the pipeline decides"
    size += f" of {settings.width}x{settings.height}" if settings.width and settings.height else ", sized by the photo"
    why = ", the fix recommended for this model" if recommended else ""
    if work.search is not None:
        start = f"start auto: at most {work.search.budget} previews of each photo, down to {settings.start}"
    elif settings.start is None and settings.motion is None:
        start = f"no fix is known for a {spec.pipeline} yet, so this is the plain pipeline; give --start"
    else:
        asked = f"motion {settings.motion}" if settings.motion else f"start {settings.start}"
        start = f"{asked}{why}: {settings.level(spec)['text']}"
    if settings.arguments.get("prompt") == "":
        start += "\nno prompt: this model reads one; --prompt tells it what happens"
    others = "".join(f"; {one}" for one in settings.strategies)
    return f"{spec.name}: {size}, steps {settings.steps}, seed {settings.seed}\n{start}; init {settings.init}{others}"
