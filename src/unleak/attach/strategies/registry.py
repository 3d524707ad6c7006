"""The registry of fixes: every training-free fix by name, with the text by which people ask for it.

A fix is one strategy class in a file of its own and one line here. `low-pass=0.25:0.1` is the text form: the name, then
the arguments in the order of `parameters`. Importing this module loads neither torch nor diffusers; a class is loaded
when a fix is parsed.

Another package adds a fix without a fork:

    from unleak.attach.strategies.registry import Fix, Number, register_fix

    register_fix(Fix("blur", "mypackage.blur:Blur", "Blur the photo.", (Number("radius", default=2.0, low=0, high=9),)))

so that `--fix blur=3` works wherever this line has run. For the command line to run it, the package names the module
that holds it as an entry point of the group `unleak.plugins` (`unleak.core.plugins`).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from unleak.core.plugins import load_plugins

if TYPE_CHECKING:
    from unleak.attach.plan import Strategy

__all__ = [
    "Choice",
    "Fix",
    "LevelText",
    "Number",
    "Parameter",
    "fix_named",
    "fixes",
    "parse_fix",
    "parse_fixes",
    "register_fix",
]


@dataclass(frozen=True)
class Parameter:
    """One argument of a fix.

    name: the keyword of the strategy's constructor. default: what an absent argument means; None: see `help`.
    required: whether it must be given. metavar: its name in the syntax, by default `name` in capitals.
    """

    name: str
    help: str = ""
    default: Any = None
    required: bool = False
    metavar: str = ""

    def __post_init__(self) -> None:
        if not self.metavar:
            object.__setattr__(self, "metavar", self.name.upper())

    def read(self, text: str) -> Any:
        """Return the value that `text` means; ValueError says what is expected."""
        return text


@dataclass(frozen=True)
class Number(Parameter):
    """A number between `low` and `high`, both allowed unless the strategy says otherwise."""

    low: float = 0.0
    high: float = 1.0
    whole: bool = False

    def read(self, text: str) -> float | int:
        """Return the number."""
        kind = "a whole number" if self.whole else "a number"
        try:
            value = int(text) if self.whole else float(text)
        except ValueError:
            raise ValueError(f"{self.metavar} {text!r} is not {kind}") from None
        if not math.isfinite(value) or not self.low <= value <= self.high:
            raise ValueError(f"{self.metavar} {text} is outside {self.low:g} to {self.high:g}")
        return value


@dataclass(frozen=True)
class Choice(Parameter):
    """One of a few words."""

    choices: tuple[str, ...] = ()

    def read(self, text: str) -> str:
        """Return the word."""
        if text not in self.choices:
            raise ValueError(f"{self.metavar} {text!r} is unknown: choose {', '.join(self.choices)}")
        return text


@dataclass(frozen=True)
class LevelText(Parameter):
    """A noise level, written as for `--start`: 940, 0.9T, sigma=5 or logsnr=-5.3."""


@dataclass(frozen=True)
class Fix:
    """A fix in the registry.

    name: what people type, in lower case with hyphens. strategy: `module:Class` of the strategy, or the class itself.
    help: one line that says what the fix does. parameters: its arguments in the order of the text form.
    separator: what stands between two arguments in the text form.
    """

    name: str
    strategy: "str | type[Strategy]"
    help: str
    parameters: tuple[Parameter, ...] = ()
    separator: str = ":"

    @property
    def syntax(self) -> str:
        """Return the text form, such as `low-pass[=FACTOR[:SHARE]]`; an argument in brackets may be left out."""
        words = [f"[{p.metavar}]" if self.separator != ":" else p.metavar for p in self.parameters]
        if self.separator != ":":
            return f"{self.name}={self.separator.join(words)}"
        text, closing = self.name, ""
        for i, (word, parameter) in enumerate(zip(words, self.parameters, strict=True)):
            text += ("" if parameter.required else "[") + (self.separator if i else "=") + word
            closing += "" if parameter.required else "]"
        return text + closing

    def load(self) -> "type[Strategy]":
        """Import and return the strategy class."""
        if not isinstance(self.strategy, str):
            return self.strategy
        module, _, name = self.strategy.partition(":")
        return getattr(import_module(module), name)

    def parse(self, arguments: str) -> "Strategy":
        """Build the strategy from the text after `NAME=`, which may be empty; ValueError says what is wrong with it."""
        texts = arguments.split(self.separator) if arguments else []
        if len(texts) > len(self.parameters):
            raise ValueError(f"{len(texts)} arguments are given, and it takes at most {len(self.parameters)}")
        if self.separator != ":" and texts and len(texts) < len(self.parameters):
            raise ValueError(f"{self.separator} is missing")
        values: dict[str, Any] = {}
        for i, parameter in enumerate(self.parameters):
            text = texts[i].strip() if i < len(texts) else ""
            if text:
                values[parameter.name] = parameter.read(text)
            elif parameter.required:
                raise ValueError(f"{parameter.metavar} is missing")
            elif i < len(texts) and self.separator == ":":
                raise ValueError(f"{parameter.metavar} is empty")
        return self.load()(**values)


_STRATEGIES = __name__.rpartition(".")[0]  # not "unleak...": in the pack for ComfyUI it is named otherwise
_SHARE = "share of the steps, from the first one on, in which the fix acts"

_FIXES: dict[str, Fix] = {
    fix.name: fix
    for fix in (
        Fix(
            "compress",
            f"{_STRATEGIES}.compress:Compress",
            "Compress the photo as a video frame before the model sees it.",
            (Number("crf", "strength of the H.264 compression; 0: none", default=33, high=51, whole=True),),
        ),
        Fix(
            "motion-amplitude",
            f"{_STRATEGIES}.motion_amplitude:MotionAmplitude",
            "Amplify how blank frames differ from the photo (PainterI2V; Wan and its kin).",
            (Number("amount", "1 changes nothing; above 1.2 colours drift", default=1.15, high=10.0),),
        ),
        Fix(
            "reference-bias",
            f"{_STRATEGIES}.reference_bias:ReferenceBias",
            "Attend less to the photo in the first steps (DyMoS).",
            (
                Number("gamma", "what is taken from the attention's logits; 0: nothing", default=0.6, high=100.0),
                Number("until", _SHARE, default=0.2),
            ),
        ),
        Fix(
            "low-pass",
            f"{_STRATEGIES}.low_pass:LowPass",
            "Show the model a blurred photo in the first steps (ALG).",
            (
                Number("factor", "size to which the latents shrink; absent: the authors' values", low=0.01, high=0.99),
                Number("interval", _SHARE, default=0.1, metavar="SHARE"),
            ),
        ),
        Fix(
            "condition-noise",
            f"{_STRATEGIES}.condition_noise:ConditionNoise",
            "Add noise to the photo's latents while sampling.",
            (
                Number("beta", "strength of the noise, in the units of the latents", required=True, high=1000.0),
                Number("interval", _SHARE, default=1.0, metavar="SHARE"),
                Choice(
                    "argument",
                    "argument of LTX-Video by which the noise is added; absent: strength",
                    choices=("strength", "image_cond_noise_scale"),
                ),
            ),
        ),
        Fix(
            "guidance-interval",
            f"{_STRATEGIES}.guidance_interval:GuidanceInterval",
            "Apply guidance between two noise levels only; one of them may be left out.",
            (
                LevelText("low", "noise level at and below which there is no guidance"),
                LevelText("high", "noise level above which there is no guidance"),
            ),
            separator="..",
        ),
        Fix(
            "expert-guidance",
            f"{_STRATEGIES}.expert_guidance:ExpertGuidance",
            "Guide the high-noise expert of Wan 2.2, without its LoRA; the other expert is not guided.",
            (
                Number("high", "guidance scale of the high-noise expert; 1: none", default=3.5, low=1, high=100),
                Number("low", "guidance scale of the low-noise expert; 1: none", default=1.0, low=1, high=100),
            ),
        ),
    )
}  # fmt: skip


def fixes() -> list[Fix]:
    """Return every registered fix, the built-in ones first."""
    load_plugins()
    return list(_FIXES.values())


def fix_named(name: str) -> Fix:
    """Return the fix called `name`; ValueError lists the names there are."""
    load_plugins()
    if name not in _FIXES:
        raise ValueError(f"there is no fix {name!r}: choose {', '.join(_FIXES)}.")
    return _FIXES[name]


def register_fix(fix: Fix) -> None:
    """Add a fix to the registry; ValueError if the name is taken."""
    if fix.name in _FIXES:
        raise ValueError(f"there is a fix {fix.name!r} already: choose another name.")
    _FIXES[fix.name] = fix


def parse_fix(text: str) -> "Strategy":
    """Read one fix, `NAME` or `NAME=ARGS`, such as `low-pass=0.25:0.1`; ValueError says what is expected."""
    name, _, arguments = text.strip().partition("=")
    fix = fix_named(name.strip())
    try:
        return fix.parse(arguments.strip())
    except ValueError as error:
        raise ValueError(f"fix {text!r}: {str(error).rstrip('.')}; write {fix.syntax}.") from None


def parse_fixes(texts: Iterable[str]) -> "tuple[Strategy, ...]":
    """Read several fixes, in the order in which they apply."""
    return tuple(map(parse_fix, texts))
