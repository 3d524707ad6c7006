"""The options that commands share, and their values that are more than a word or a number."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from unleak.data.lists import Entry

QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Say results and failures only.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
ModelOption = Annotated[str, typer.Option(help="A name that `unleak models` lists, a folder, or a Hub id.")]
OthersOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Another argument of the pipeline; repeatable.")
]
FpsOption = Annotated[float | None, typer.Option(min=1, max=240, help="Frames a second; models that ask are told.")]
FramesOption = Annotated[int | None, typer.Option(min=2, max=10_000, help="Frames of each video.")]
StepsOption = Annotated[int | None, typer.Option(min=1, max=10_000, help="Denoising steps of each video.")]
SizeOption = Annotated[str | None, typer.Option(metavar="WxH", help="Width and height, such as 1024x576.")]
GuidanceOption = Annotated[
    str | None, typer.Option(metavar="SCALE[:MAX]", help="Guidance; for SVD at the first and at the last frame.")
]
PromptOption = Annotated[str | None, typer.Option(help="What happens in the video, for models that read.")]
NegativePromptOption = Annotated[str | None, typer.Option(help="What should not happen.")]
NoiseAugOption = Annotated[
    float | None, typer.Option(min=0, max=100, help="Noise added to the photo; the model is told.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Check everything; load no model, write nothing.")]
ModeOption = Annotated[
    Literal["rescale", "truncate"], typer.Option(help="Space the steps anew below the start, or drop those above.")
]
LowPassOption = Annotated[
    str | None,
    typer.Option(
        metavar="FACTOR[:SHARE]",
        help="Shrink the image's latents in the first share of the steps (0.1), or `published`: low-pass condition.",
    ),
]
ConditionNoiseOption = Annotated[str | None, typer.Option(metavar="BETA", help="Noise on the image's latents.")]
GuidanceIntervalOption = Annotated[
    str | None, typer.Option(metavar="LOW..HIGH", help="Guidance between these levels alone; one may be missing.")
]


def refuse_empty(**options: str | None) -> None:
    """ValueError for an option that was given and says nothing, as an unset variable of a script does."""
    for name, text in options.items():
        if text is not None and not text.strip():
            raise ValueError(f"--{name} is empty; give a value, or leave it out")


def parse_strategies(low_pass: str | None, condition_noise: str | None, guidance_interval: str | None) -> Any:
    """What --low-pass, --condition-noise and --guidance-interval ask for, as `Settings` take it."""
    from unleak.attach.strategies import texts

    try:
        return texts.parse_strategies(
            low_pass=low_pass, condition_noise=condition_noise, guidance_interval=guidance_interval
        )
    except ValueError as error:
        raise ValueError(f"--{error}") from None


def parse_size(text: str | None) -> tuple[int | None, int | None]:
    """`1024x576` to width and height in pixels; (None, None) if not given."""
    if text is None:
        return None, None
    width, _, height = text.lower().partition("x")
    if not all(re.fullmatch(r"[0-9]{1,5}", side) and int(side) for side in (width, height)):
        raise ValueError(f"--size {text}: give width and height in pixels, up to 99999, such as 1024x576")
    return int(width), int(height)


def parse_guidance(text: str | None) -> tuple[float | None, float | None]:
    """`1:3` to the guidance at the first and at the last frame; one number stands for both."""
    if text is None:
        return None, None
    low, _, high = text.partition(":")
    try:
        scales = float(low), float(high or low)
    except ValueError:
        scales = (0.0, 0.0)
    if not all(1 <= scale <= 100 for scale in scales):
        raise ValueError(f"--guidance {text}: give one or two numbers from 1 (none) to 100, such as 1:3")
    if scales[0] > scales[1] == 1:  # diffusers asks the last frame whether there is any guidance
        raise ValueError(f"--guidance {text}: 1 at the last frame turns guidance off for all; give more, such as 3:1.1")
    return scales


def choose_prompts(entries: "Sequence[Entry]", file: Path | None, prompt: str | None) -> list[str | None]:
    """A prompt for each entry: its own, or what `read_prompts` says; ValueError where both say something."""
    if own := next((entry for entry in entries if entry.prompt is not None), None):
        for option, given in (("--prompts", file), ("--prompt", prompt)):
            if given is not None:
                raise ValueError(f"{option} {given}: {own.origin} has prompts of its own; leave {option} away")
        return [entry.prompt for entry in entries]
    return read_prompts(file, len(entries), prompt)


def read_prompts(file: Path | None, photos: int, prompt: str | None) -> list[str | None]:
    """A prompt for each of `photos` photos: the lines of `file`; None for each without one."""
    if file is None:
        return [None] * photos
    if prompt is not None:
        raise ValueError("--prompt is for all photos, --prompts for each its own; give one of them")
    from unleak.data.lists import read_prompts as read

    try:
        return list(read(file, photos))
    except ValueError as error:
        raise ValueError(f"--prompts {error}") from None
    except OSError as error:
        raise ValueError(f"--prompts {file}: {error.strerror}; give a text file, one line for each photo") from None
