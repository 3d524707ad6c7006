"""`unleak generate`: photos to videos."""

import hashlib
import json
import platform
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from unleak import __version__
from unleak.cli.errors import WRONG_INPUT, describe_error
from unleak.cli.options import parse_guidance, parse_size
from unleak.cli.terminal import Terminal

if TYPE_CHECKING:  # this module is imported for `unleak --help`, which needs none of these
    from PIL import Image

    from unleak.core.initial import InitialNoise
    from unleak.zoo.registry import ModelSpec
    from unleak.zoo.sample import Settings


def generate(
    inputs: Annotated[list[str], typer.Argument(metavar="PHOTO...", help="Photos: files, folders, patterns.")],
    model: Annotated[str, typer.Option(help="nano, svd, svd-xt, a folder, or a Hub id.")] = "nano",
    out: Annotated[Path, typer.Option(help="Folder for NAME.mp4 and NAME.json.")] = Path("out"),
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="The same seed gives the same video of a photo.")] = 0,
    num_frames: Annotated[int | None, typer.Option(min=2, help="Frames of the video.")] = None,
    fps: Annotated[float | None, typer.Option(min=1, max=240, help="Frames a second; the model is told.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Width and height, such as 1024x576.")] = None,
    start: Annotated[
        str | None,
        typer.Option(help="Where sampling starts: 940, 0.94T, sigma=100, logsnr=-5.3; 1.0T is the plain pipeline."),
    ] = None,
    init: Annotated[str | None, typer.Option(help="Initial noise: standard, unit, analytic, or moments file.")] = None,
    mode: Annotated[
        Literal["rescale", "truncate"], typer.Option(help="Space the steps anew below the start, or drop those above.")
    ] = "rescale",
    motion: Annotated[
        Literal["low", "medium", "high"] | None, typer.Option(help="A preset of the model, in place of --start.")
    ] = None,
    guidance: Annotated[
        str | None, typer.Option(metavar="MIN[:MAX]", help="Guidance at the first and at the last frame.")
    ] = None,
    noise_aug: Annotated[float | None, typer.Option(min=0, help="Noise added to the photo; the model is told.")] = None,
    format: Annotated[
        Literal["mp4", "gif", "webp", "png"], typer.Option(help="png is one sheet with all frames.")
    ] = "mp4",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace videos that exist.")] = False,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave out videos that exist.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; by default the accelerator.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, float16 or bfloat16.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say results and failures only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything; load no model, write nothing.")] = False,
) -> int:
    """Animate photos with the leak of the model fixed. NAME.json beside each video says exactly how it was made.

    Without --start or --motion the fix recommended for the model is used; --start 1.0T gives the plain pipeline.
    """
    # What needs no torch comes first: a missing photo is told at once.
    from unleak.data.atomic import check_writable
    from unleak.data.folder import find_images
    from unleak.data.image import MediaError
    from unleak.zoo.registry import find_model

    terminal = Terminal(quiet, as_json)
    if overwrite and skip_existing:
        raise ValueError("--overwrite and --skip-existing exclude each other; give one of them")
    spec = find_model(model)
    width, height = parse_size(size)
    low, high = parse_guidance(guidance)
    jobs = [Job(photo, out / f"{photo.stem}.{format}") for photo in find_images(inputs)]
    jobs, skipped = _without_existing(jobs, overwrite=overwrite, skip_existing=skip_existing)
    if len(jobs) == 1:
        jobs[0].load_photo([])

    from unleak.zoo.hub import load, pick_device, pick_dtype
    from unleak.zoo.sample import Settings, initial_noise

    pick_dtype(dtype, pick_device(device))
    settings = Settings.for_model(
        spec,
        height=height,
        width=width,
        num_frames=num_frames,
        fps=fps,
        steps=steps,
        min_guidance=low,
        max_guidance=high,
        noise_aug_strength=noise_aug,
        start=start,
        init=init,
        mode=mode,
        motion=motion,
        seed=seed,
    )
    noise = initial_noise(settings.init, spec)
    if not dry_run:
        check_writable(out)
    terminal.note(_in_words(spec, settings, recommended=start is None and motion is None))
    pipe, done, failed = None, list[dict[str, Any]](), list[dict[str, str]]()
    with terminal.progress() as progress:
        photos = progress.add_task("photos", total=len(jobs), visible=len(jobs) > 1)
        for job in jobs:
            try:
                image = job.load_photo(done)
            except (MediaError, OSError) as error:  # a bad photo stops no other
                failed.append({"photo": str(job.photo), "reason": describe_error(error)})
                terminal.failure(describe_error(error))
            else:
                for note in image.info["notes"]:
                    terminal.note(f"{job.photo}: {note}")
                if dry_run:
                    record = {"photo": str(job.photo), "video": str(job.video)}
                else:
                    if pipe is None:
                        pipe = load(spec.source, device=device, dtype=dtype)
                        pipe.set_progress_bar_config(disable=True)  # the bar here is `progress`
                    record = _animate(pipe, job, image, spec, settings, noise, progress)
                done.append(record)
                terminal.line(f"{job.photo} -> {job.video}" if dry_run else str(job.video))
            progress.advance(photos)
    terminal.json(
        {
            "model": asdict(spec),
            "settings": asdict(settings),
            "planned" if dry_run else "videos": done,
            "skipped": [str(job.video) for job in skipped],
            "failed": failed,
        }
    )
    return WRONG_INPUT if failed else 0


@dataclass(frozen=True)
class Job:
    """A photo and the video to be made of it."""

    photo: Path
    video: Path

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

    def write(self, frames: Any, record: dict[str, Any], *, fps: float) -> None:
        """Write the video and its record, both or neither."""
        from unleak.data.atomic import written_whole
        from unleak.data.video import write_video

        with written_whole(self.record) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            write_video(frames, self.video, fps=fps)


def _without_existing(jobs: list[Job], *, overwrite: bool, skip_existing: bool) -> tuple[list[Job], list[Job]]:
    """The jobs to do and those to skip."""
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


def _animate(
    pipe: Any,
    job: Job,
    image: "Image.Image",
    spec: "ModelSpec",
    settings: "Settings",
    noise: "InitialNoise",
    progress: Any,
) -> dict[str, Any]:
    from unleak.zoo.sample import sample

    began, task = time.monotonic(), progress.add_task(job.photo.name, total=settings.steps)
    made = sample(
        pipe, image, settings, noise, on_step=lambda done, of: progress.update(task, completed=done, total=of)
    )
    progress.remove_task(task)
    record = {
        "photo": {
            "file": str(job.photo),
            "sha256": hashlib.sha256(job.photo.read_bytes()).hexdigest(),
            "size": list(image.size),
            "notes": image.info["notes"],
        },
        "video": str(job.video),
        "model": {"name": spec.name, "source": spec.source, "revision": spec.revision, "moments": spec.moments},
        **made.record,
        "device": str(pipe.device),
        "dtype": str(pipe.dtype).removeprefix("torch."),
        "seconds": round(time.monotonic() - began, 2),
        "versions": {"unleak": __version__, "python": platform.python_version()}
        | {name: version(name) for name in ("torch", "diffusers", "transformers")},
    }
    job.write(made.frames, record, fps=settings.fps)
    return record


def _in_words(spec: "ModelSpec", settings: "Settings", *, recommended: bool) -> str:
    size = f"{settings.num_frames} frames of {settings.width}x{settings.height}"
    if settings.start is None:
        start = f"motion {settings.motion}"
    else:
        why = ", the fix recommended for this model" if recommended else ""
        start = f"start {settings.start}{why}: {settings.level(spec)['text']}"
    return f"{spec.name}: {size}, steps {settings.steps}, seed {settings.seed}\n{start}; init {settings.init}"
