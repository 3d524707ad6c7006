"""Options that commands share: declared once, as dataclasses that a command takes whole.

A command lists the groups of options that it has, and its own arguments beside them::

    @command
    def sweep(
        photo: Annotated[Path, argument("PHOTO", "The photo to animate.")],
        video: Video,
        fix: Fix,
        memory: Memory,
        output: Output,
        typed: CommandLine,
    ) -> None:
        spec = find_model(video.model)
        settings = Settings.for_model(spec, video.request(fix, start=Start.parse("0.94T")))

`command` turns each field of `Video`, `Fix`, `Memory` and `Output` into an option of the command line and hands the
filled dataclasses over; `typed` is what the user typed, to be shown beside the results. A group is an ordinary frozen
dataclass that derives from `Group`; a command may derive its own from one of those here, to add options or to replace
them. A group checks its fields in `__post_init__`: a ValueError there is shown before anything heavy is imported.
"""

import inspect
import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, ForwardRef, Literal, get_args, get_origin

import typer

from unleak.cli.terminal import Terminal

if TYPE_CHECKING:  # this module is imported for `unleak --help`, which needs none of these
    from unleak.animate.model import Loading
    from unleak.animate.request import Guidance, Request
    from unleak.core.start import Start
    from unleak.data.lists import Entry
    from unleak.study.tune.goal import Fidelity, TargetMotion
    from unleak.zoo.lora import Lora
    from unleak.zoo.registry import ModelSpec

BASIC, FIX, OUTPUT, MEMORY, MODEL = "Basic", "Fix", "Output", "Memory", "Model"
PANELS = (BASIC, FIX, OUTPUT, MEMORY, MODEL)
"""Panels of the help page, in their order."""


class Group:
    """A dataclass whose fields are options; `panel` is the part of the help page that lists those that name none."""

    panel: ClassVar[str | None] = None


def option(
    metavar: str | None,
    help: str,
    *names: str,
    parse: Callable[[str], Any] | None = None,
    panel: str | None = None,
    eager: bool = False,
) -> Any:
    """Declare an option, to be put into `Annotated`.

    metavar: what stands for the value on the help page; None for a choice of words, "" for a flag. names: such as
    "--json"; without any, the field's own name. parse: makes the value of the text, or raises ValueError. eager: read
    this option before all others, and before a missing argument is noticed.
    """
    read = None if parse is None else partial(_read, parse)
    return typer.Option(*names, metavar=metavar, help=help, parser=read, rich_help_panel=panel, is_eager=eager)


def argument(metavar: str, help: str) -> Any:
    """Declare an argument, to be put into `Annotated`."""
    return typer.Argument(metavar=metavar, help=help)


@dataclass(frozen=True)
class _Value:
    """What an option says, and the text that said so."""

    value: Any
    text: str


def _read(parse: Callable[[str], Any], text: Any) -> _Value:
    if isinstance(text, _Value):
        return text
    try:
        return _Value(parse(str(text)), str(text))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


@dataclass(frozen=True)
class CommandLine:
    """The command as the user typed it: its name and, by parameter, the words that differ from the defaults."""

    name: str
    words: Mapping[str, list[str]]
    options: Mapping[str, str | None]
    """The option of each parameter; None for an argument."""

    def text(self, **resolved: Any) -> str:
        """Return the command as a line for a shell; `resolved` replaces what was typed for these parameters."""
        said = {name: [str(one) for one in _listed(value)] for name, value in resolved.items()}
        line = ["unleak", self.name]
        for name, option in self.options.items():
            words = said.get(name, self.words.get(name))
            for word in words or []:
                line += [word] if option is None else [option, word] if word else [option]
        return shlex.join(line)


_SILENT = ("overwrite", "quiet", "verbose", "as_json", "dry_run")  # they change no result


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a command of `function`: its parameters that are a `Group` become one option for each field.

    A parameter of type `CommandLine` is filled with what was typed.
    """
    shown: dict[str, inspect.Parameter] = {}
    groups: dict[str, tuple[type, list[str]]] = {}
    typed = None
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        kind = parameter.annotation
        if kind is CommandLine:
            typed = name
        elif isinstance(kind, type) and issubclass(kind, Group):
            mine = vars(kind).get("__annotations__", {})  # of a derived group: what a command adds comes first
            own = [_parameter(kind, one) for one in sorted(fields(kind), key=lambda one: one.name not in mine)]  # type: ignore[arg-type]
            groups[name] = kind, [one.name for one in own]
            shown |= {one.name: one for one in own}
        else:
            shown[name] = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
    assert not any(name in names for name in groups for _, names in groups.values()), "a group is called as an option"

    def run(**given: Any) -> Any:
        values = {name: _plain(value) for name, value in given.items()}
        arguments: dict[str, Any] = {}
        for name, (kind, names) in groups.items():
            arguments[name] = kind(**{one: values.pop(one) for one in names})
        if typed is not None:
            arguments[typed] = _command_line(function.__name__, shown, given)
        return function(**values, **arguments)

    shown = dict(sorted(shown.items(), key=lambda one: _place(one[1])))
    run.__name__, run.__doc__, run.__module__ = function.__name__, _paragraphs(function.__doc__), function.__module__
    run.__signature__ = inspect.Signature(list(shown.values()))  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in shown.items()}
    return run


def _paragraphs(text: str | None) -> str:
    """Join the lines of each paragraph: the help page breaks them to the width of the terminal."""
    return "\n\n".join(" ".join(one.split()) for one in inspect.cleandoc(text or "").split("\n\n"))


def _place(parameter: inspect.Parameter) -> int:
    """Return where a parameter stands on the help page: arguments first, then the panels in their order."""
    declared = next(iter(getattr(parameter.annotation, "__metadata__", ())), None)
    if isinstance(declared, typer.models.ArgumentInfo):
        return 0
    panel = getattr(declared, "rich_help_panel", None)
    return 1 + (PANELS.index(panel) if panel in PANELS else len(PANELS))


def _parameter(group: type, field: Any) -> inspect.Parameter:
    """Turn a field of a group into a parameter of a command."""
    annotation = field.type
    assert get_origin(annotation) is Annotated, f"{group.__name__}.{field.name} declares no option"
    kind, declared = get_args(annotation)
    if isinstance(kind, ForwardRef):  # a type that is not imported yet; its parser makes the value
        kind = list[str] | None if kind.__forward_arg__.startswith("list") else str | None
    if isinstance(declared, typer.models.OptionInfo) and declared.rich_help_panel is None:
        declared.rich_help_panel = getattr(group, "panel", None)
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, declared]
    )


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.value if isinstance(value, _Value) else value


def _listed(value: Any) -> list[Any]:
    if value is None or value is False:
        return []
    if value is True:
        return [""]
    return list(value) if isinstance(value, list | tuple) else [value]


def _command_line(name: str, shown: Mapping[str, inspect.Parameter], given: Mapping[str, Any]) -> CommandLine:
    words, options = {}, {}
    for key, parameter in shown.items():
        declared = get_args(parameter.annotation)[1] if get_origin(parameter.annotation) is Annotated else None
        is_argument = isinstance(declared, typer.models.ArgumentInfo)
        names = getattr(declared, "param_decls", None) or ()
        first = getattr(declared, "default", None)
        spelled = [one for one in (first, *names) if isinstance(one, str) and one.startswith("--")]
        options[key] = None if is_argument else spelled[0] if spelled else f"--{key.replace('_', '-')}"
        said = [one.text if isinstance(one, _Value) else str(one) for one in _listed(given[key]) if one != ""]
        said = [""] if given[key] is True else said
        if key not in _SILENT and said and said != [str(one) for one in _listed(parameter.default)]:
            words[key] = said
    return CommandLine(name, words, options)


# What texts mean.


def whole(low: int, high: int) -> Callable[[str], int]:
    """Read a whole number from `low` to `high`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"\s*[+-]?[0-9_]{1,40}\s*", text) or not low <= int(text) <= high:
            raise ValueError(f"{text} is not a whole number from {low} to {high}")
        return int(text)

    return parse


def number(low: float, high: float) -> Callable[[str], float]:
    """Read a number from `low` to `high`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise ValueError(f"{text} is not a number from {low:g} to {high:g}")
        return value

    return parse


def to_text(given: str) -> str:
    """Read a text that says something; an unset variable of a script gives an empty one."""
    if not given.strip():
        raise ValueError("it is empty; give a value, or leave the option out")
    return given


def to_start(given: str) -> "Start":
    """Read where sampling starts."""
    from unleak.core.start import Start

    return Start.parse(to_text(given))


_MOST_STARTS = 50
"""Each start is a video on the page of a sweep, all played at once."""


def to_starts(given: str) -> "tuple[Start, ...]":
    """Read several starts with commas between them."""
    found = tuple(to_start(one) for one in given.split(",") if one.strip())
    if not found:
        raise ValueError("give one start or more, such as 1.00T,0.94T,0.90T")
    if len(found) > _MOST_STARTS:
        raise ValueError(f"{len(found)} starts; a page shows at most {_MOST_STARTS}: give fewer")
    return found


def to_start_or_auto(given: str) -> "Start | str":
    """Read where sampling starts, or `auto`."""
    return "auto" if given.strip().lower() == "auto" else to_start(given)


def to_target(given: str) -> "TargetMotion":
    """Read `8px/s` or `0.5px/frame`."""
    from unleak.study.tune.goal import TargetMotion

    return TargetMotion.parse(given)


def to_fidelity(given: str) -> "Fidelity":
    """Read `plain-3dB` or `22dB`."""
    from unleak.study.tune.goal import Fidelity

    return Fidelity.parse(given)


def to_help(given: str) -> None:
    """Print the arguments of a model's own that change its motion, and end the command."""
    from unleak.animate.knobs import knobs
    from unleak.zoo.registry import find_model

    spec = find_model(given)
    terminal = Terminal()
    terminal.line(f"{spec.name} moves by:" if knobs(spec) else f"{spec.name} has no motion arguments of its own")
    for knob in knobs(spec):
        terminal.line(f"  {knob.text}")
    raise typer.Exit


def to_size(given: str) -> tuple[int, int]:
    """Read `1024x576` as (width, height) in pixels."""
    width, _, height = given.lower().partition("x")
    if not all(re.fullmatch(r"[0-9]{1,5}", side) and int(side) for side in (width, height)):
        raise ValueError(f"{given}: give width and height in pixels, up to 99999, such as 1024x576")
    return int(width), int(height)


def to_device(given: str) -> str:
    """Read the name of a device, as torch has them; whether it is there is known once torch is imported."""
    if not re.fullmatch(r"(cpu|cuda|mps|xpu|npu|hpu|mtia)(:[0-9]{1,3})?", given):
        raise ValueError(f"device {given!r} is unknown; give cpu, cuda, cuda:1 or mps")
    return given


def to_dtype(given: str) -> str:
    """Read the name of a precision."""
    if given not in ("float32", "float16", "bfloat16"):
        raise ValueError(f"dtype {given!r}: give one of float32, float16, bfloat16")
    return given


def to_guidance(given: str) -> "Guidance":
    """Read `3`, `1:3` or `high=3.5,low=1`."""
    from unleak.animate.request import Guidance

    return Guidance.parse(given)


def to_lora(given: str) -> "Lora":
    """Read `PATH[:SCALE]`, with `high=` or `low=` before it for one expert of a model that has two."""
    from unleak.zoo.lora import Lora

    return Lora.parse(given)


def to_fix(given: str) -> Any:
    """Read `NAME` or `NAME=ARGS`, one of the fixes that act beside the start."""
    from unleak.attach.strategies import parse_fix

    return parse_fix(to_text(given))


# Groups of options.


@dataclass(frozen=True)
class Photos(Group):
    """The photos of a command that takes many, each perhaps with a prompt, a mask and a seed of its own."""

    inputs: Annotated[list[str], argument("PHOTO...", "Photos: files, folders, patterns, or lists.")]
    prompts: Annotated[
        Path | None, option("FILE", "A file with a prompt per line, for the photos in their order.", panel=BASIC)
    ] = None
    mask: Annotated[
        Path | None,
        option("FILE", "Picture that is white where things move, for models that take one.", panel=BASIC),
    ] = None
    allow_outside: Annotated[
        bool,
        option("", "Let a list name photos outside its own folder.", "--allow-outside", panel=BASIC),
    ] = False

    def entries(self, prompt: str | None) -> "tuple[list[Entry], list[str | None]]":
        """Find the photos, and the prompt of each (None without one); `prompt` is the one given for all.

        Raises ValueError if there are none, if a file cannot be read, or if prompts come from two places.
        """
        from unleak.data.lists import find_entries

        asked = prompt is not None or self.prompts is not None
        found = find_entries(self.inputs, allow_outside=self.allow_outside, prompt_folders=not asked)
        return found, choose_prompts(found, self.prompts, prompt)


@dataclass(frozen=True)
class Video(Group):
    """What the video is to be like, and the model that makes it."""

    panel = BASIC

    model: Annotated[
        str, option("NAME", "A name that `unleak models` lists, a folder, or a Hub id.", parse=to_text, panel=MODEL)
    ] = "nano"
    prompt: Annotated[str | None, option("TEXT", "What happens in the video, for models that read a prompt.")] = None
    negative_prompt: Annotated[str | None, option("TEXT", "What should not happen in it.")] = None
    num_frames: Annotated[int | None, option("N", "Frames of each video.", parse=whole(2, 10_000))] = None
    fps: Annotated[
        float | None,
        option("HZ", "Frames per second; models that take a frame rate are given it.", parse=number(1, 240)),
    ] = None
    steps: Annotated[int | None, option("N", "Denoising steps of each video.", parse=whole(1, 10_000))] = None
    size: Annotated[
        "tuple[int, int] | None", option("WxH", "Width and height in pixels, such as 1024x576.", parse=to_size)
    ] = None
    guidance: Annotated[
        "Guidance | None",
        option(
            "SCALE[:LAST]",
            "Guidance scale; for SVD of the first and the last frame; for Wan 2.2 also high=3.5,low=1.",
            parse=to_guidance,
            panel=MODEL,
        ),
    ] = None
    noise_aug: Annotated[
        float | None,
        option("X", "Noise added to the photo; the model is given its level.", parse=number(0, 100), panel=MODEL),
    ] = None
    others: Annotated[
        list[str] | None,
        option(
            "NAME=VALUE",
            "Another argument of the pipeline, as `unleak models show` lists them; repeatable.",
            "--set",
            panel=MODEL,
        ),
    ] = None

    help_model: Annotated[
        str | None,
        option("NAME", "List a model's own motion arguments, and stop.", parse=to_help, panel=MODEL, eager=True),
    ] = None

    def spec(self) -> "ModelSpec":
        """Find the model, before torch is imported; ValueError for a size or a number of frames that it cannot make."""
        from unleak.zoo.registry import find_model

        spec = find_model(self.model)
        if self.size is not None:
            spec.check_size(self.size[1], self.size[0])
        if self.num_frames is not None:
            spec.check_frames(self.num_frames)
        return spec

    def request(self, fix: "Fix | None" = None, **more: Any) -> "Request":
        """Return what the user asks of a video, as `Settings.for_model` takes it; `more` are fields of `Request`."""
        from unleak.animate.request import Request

        width, height = self.size or (None, None)
        asked = {
            "height": height,
            "width": width,
            "num_frames": self.num_frames,
            "fps": self.fps,
            "steps": self.steps,
            "guidance": self.guidance,
            "noise_aug_strength": self.noise_aug,
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "others": tuple(self.others or ()),
        }
        if fix is not None:
            asked |= {"init": fix.init, "mode": fix.mode, "strategies": tuple(fix.fixes or ())}
        return Request(**{**asked, **more})


@dataclass(frozen=True)
class Fix(Group):
    """What fixes the motion, beside the start."""

    panel = FIX

    init: Annotated[
        str | None,
        option("NAME|FILE", "Initial noise: standard, unit, analytic, or a file of moments.", parse=to_text),
    ] = None
    mode: Annotated[
        Literal["auto", "rescale", "truncate"],
        option(
            "WAY",
            "rescale: space the steps anew below the start; truncate: drop the steps above it; auto: rescale, but "
            "truncate where the model has few steps.",
        ),
    ] = "auto"
    fixes: Annotated[
        "list[Any] | None",
        option(
            "NAME[=ARGS]",
            "Another fix, such as low-pass=0.25:0.1 or guidance-interval=..sigma=10; repeatable.",
            "--fix",
            parse=to_fix,
        ),
    ] = None


@dataclass(frozen=True)
class Memory(Group):
    """Where and how the model is loaded."""

    panel = MEMORY

    device: Annotated[
        str | None,
        option("NAME", "cpu, cuda, cuda:1 or mps; by default the accelerator, if there is one.", parse=to_device),
    ] = None
    dtype: Annotated[str | None, option("NAME", "float32, float16 or bfloat16.", parse=to_dtype)] = None
    offload: Annotated[
        Literal["none", "model", "sequential", "group"],
        option(
            "WAY",
            "Keep weights off the accelerator until needed: none, model, group or sequential, from fast to small; "
            "`unleak doctor --model` says what fits.",
        ),
    ] = "none"
    vae_tiling: Annotated[bool, option("", "Decode in tiles, to save memory.", "--vae-tiling")] = False
    lora: Annotated[
        "list[Lora] | None",
        option(
            "PATH[:SCALE]",
            "LoRA weights to add; high=PATH or low=PATH for one expert of Wan 2.2; repeatable.",
            parse=to_lora,
            panel=MODEL,
        ),
    ] = None

    @property
    def loading(self) -> "Loading":
        """Return how the model is loaded."""
        from unleak.animate.model import Loading

        return Loading(self.device, self.dtype, self.offload, self.vae_tiling, tuple(self.lora or ()))

    def picked(self) -> Any:
        """Return the device, as torch has it."""
        from unleak.zoo.hub import pick_device

        return pick_device(self.device)


@dataclass(frozen=True)
class Output(Group):
    """How the command speaks."""

    panel = OUTPUT

    quiet: Annotated[bool, option("", "Print results and failures only.", "--quiet", "-q")] = False
    verbose: Annotated[bool, option("", "Print noise levels in every unit, and more.", "--verbose", "-v")] = False
    as_json: Annotated[bool, option("", "Print one JSON object.", "--json")] = False
    dry_run: Annotated[bool, option("", "Check everything; load no model and write nothing.", "--dry-run")] = False

    def terminal(self) -> Terminal:
        """Return the terminal to which the command speaks."""
        return Terminal(self.quiet, self.as_json, self.verbose)


def choose_prompts(entries: "Sequence[Entry]", file: Path | None, prompt: str | None) -> list[str | None]:
    """Choose a prompt for each entry: its own, or what `read_prompts` says; ValueError where both say something."""
    if own := next((entry for entry in entries if entry.prompt is not None), None):
        for option, given in (("--prompts", file), ("--prompt", prompt)):
            if given is not None:
                raise ValueError(f"{option} {given}: {own.origin} has prompts of its own; leave {option} out")
        return [entry.prompt for entry in entries]
    return read_prompts(file, len(entries), prompt)


def read_prompts(file: Path | None, photos: int, prompt: str | None) -> list[str | None]:
    """Read a prompt for each of `photos` photos, the lines of `file`; None for each without a file."""
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


# The same one by one, for commands without groups.

QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print results and failures only.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
