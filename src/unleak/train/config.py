"""Training recipes: what a YAML file may say, checked at once, one line per problem."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class RecipeError(ValueError):
    """A recipe that cannot be run; the message has one line per problem."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class SigmaConfig(_Strict):
    """ln sigma ~ N(p_mean, p_std^2), mixed with a share log-uniform on `uniform_range`. Defaults: the paper's."""

    p_mean: float = -1.2
    p_std: Positive = 1.2
    uniform_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    uniform_range: tuple[Positive, Positive] = (10.0, 700.0)
    sigma_data: Positive = 1.0

    @field_validator("uniform_range")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise ValueError(f"must be [low, high] with low < high, given {list(value)}")
        return value


class CleanConfig(_Strict):
    """A condition with a constant pixel noise before the VAE (0: none); the network is told `noise_aug_strength`."""

    noise: Literal["none"]
    noise_aug_strength: NonNegative = 0.0
    dropout: Share = 0.1


class PixelNoiseConfig(_Strict):
    """The naive baseline: pixel noise of strength s before the VAE, ln s ~ N(p_mean, p_std^2), and told."""

    noise: Literal["pixel"]
    p_mean: float = -1.2
    p_std: NonNegative = 1.2
    dropout: Share = 0.1


class TimeNoiseConfig(_Strict):
    """TimeNoise on the raw condition latents after the VAE.

    t is the quantile of sigma under the training distribution. The network is told beta in the place of
    `noise_aug_strength` (`told: false`: it is told 0, as when sampling). `reference` gives the reference
    implementation's t = sigma / 700 and its one scalar of noise per clip. `per_frame` noises each repeated frame
    independently.
    """

    noise: Literal["timenoise"]
    beta_m: NonNegative = 100.0
    a: Positive = 5.0
    spread: NonNegative = 1.0
    mu_max: NonNegative = 1.0
    told: bool = True
    per_frame: bool = False
    reference: bool = False
    dropout: Share = 0.1

    @model_validator(mode="after")
    def _reference_is_whole(self) -> "TimeNoiseConfig":
        if self.reference and self.per_frame:
            raise ValueError("per_frame and reference exclude each other: the reference draws one scalar per clip")
        if self.reference and not self.told:
            raise ValueError("told: false and reference exclude each other: the reference tells the network beta")
        return self


ConditionConfig = Annotated[CleanConfig | PixelNoiseConfig | TimeNoiseConfig, Field(discriminator="noise")]


class SyntheticData(_Strict):
    """Procedural clips of the photos in a folder; `motion` holds fields of `unleak.data.synthetic.MotionRange`."""

    kind: Literal["synthetic"]
    photos: Path
    size: Count = 64
    num_frames: Count = 12
    seed: int = 0
    length: Count = 10_000
    fps: Positive = 6.0
    motion_bucket_id: NonNegative = 127.0
    motion: dict[str, float] = {}
    cache: Path | None = None
    workers: Annotated[int, Field(ge=0)] = 0

    @field_validator("motion")
    @classmethod
    def _known_motion(cls, value: dict[str, float]) -> dict[str, float]:
        from unleak.data.synthetic import MotionRange

        known = [f.name for f in fields(MotionRange)]
        if unknown := sorted(set(value) - set(known)):
            raise ValueError(f"unknown {', '.join(unknown)}; known are {', '.join(known)}")
        return value


class FolderData(_Strict):
    """The videos of a folder: clips of `num_frames` at `fps`, resized and cropped to `size` = [height, width]."""

    kind: Literal["folder"]
    path: Path
    size: tuple[Count, Count] = (320, 512)
    num_frames: Count = 16
    seed: int = 0
    fps: Positive = 3.0
    motion_bucket_id: NonNegative = 20.0
    max_failures: Share = 0.05
    cache: Path | None = None
    workers: Annotated[int, Field(ge=0)] = 0


DataConfig = Annotated[SyntheticData | FolderData, Field(discriminator="kind")]


class Recipe(_Strict):
    """One training run. `batch_size` counts the clips of one optimizer step, over all processes and all `accumulation`
    pieces, so that a recipe means the same on any machine."""

    model: str
    init: Literal["pretrained", "random"] = "pretrained"
    trainable: Literal["all"] | list[str] = "all"
    output: Path
    data: DataConfig

    steps: Count
    batch_size: Count = 1
    accumulation: Count = 1
    seed: int = 0
    sigma: SigmaConfig = SigmaConfig()
    condition: ConditionConfig

    optimizer: Literal["adamw", "muon"] = "adamw"
    lr: Positive = 3e-5
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    betas: tuple[Share, Share] = (0.9, 0.999)
    weight_decay: NonNegative = 0.01
    clip: Positive | None = 1.0
    motion_readout: NonNegative = 0.0
    """Weight of the squared error, (px/frame)^2, of a linear read-out of the motion (train/readout.py); 0: none."""
    ema_decay: Share = 0.9999
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    gradient_checkpointing: bool = False

    checkpoint_every: Count = 500
    keep: Count = 2
    log_every: Count = 50
    max_hours: Positive | None = None
    report_to: Literal["none", "tensorboard"] = "none"
    dtype: Literal["fp32", "fp16"] = "fp32"

    @model_validator(mode="after")
    def _motion_is_known(self) -> "Recipe":
        if self.motion_readout and self.data.kind != "synthetic":
            raise ValueError("motion_readout needs clips of known motion: data.kind: synthetic, or motion_readout: 0")
        return self

    @model_validator(mode="after")
    def _divisible(self) -> "Recipe":
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be cut into {self.accumulation} equal pieces: "
                "choose an accumulation that divides it"
            )
        return self


# Keys that change when a run stops and what it writes, but not what it computes: free to differ on resume.
FREE_ON_RESUME = {
    *("steps", "checkpoint_every", "keep", "log_every", "max_hours", "report_to", "dtype", "output"),
    "data.workers",
}


class _Loader(yaml.SafeLoader):
    """YAML 1.2's words and numbers: PyYAML follows 1.1, where `no` is false and 3e-5 a string."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false)$", re.IGNORECASE), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """The recipe in a YAML file, with `key.sub=value` overrides applied. Raises RecipeError with every problem."""
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: expected a mapping of recipe keys, found {type(values).__name__}")
    for override in overrides or []:
        _set(values, override)
    return parse_recipe(values, source=str(path))


def parse_recipe(values: dict[str, Any], *, source: str = "recipe") -> Recipe:
    """A recipe from plain values (as YAML gives them)."""
    try:
        # The strict rules of JSON: a path may come as text and a pair as a list, a number may not.
        return Recipe.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        lines = [f"  {_place(e['loc'])}: {_message(e)}" for e in error.errors()]
        raise RecipeError("\n".join([f"{source}: {len(lines)} problem{'s'[: len(lines) > 1]}", *lines])) from error


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every default written out; `load_recipe` reads it back."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def differing_keys(a: Recipe, b: Recipe) -> list[str]:
    """Dotted keys whose values differ and that would change what the run computes."""
    flat_a, flat_b = _flat(a.model_dump(mode="json")), _flat(b.model_dump(mode="json"))
    for flat in (flat_a, flat_b):
        flat["data.cache"] = (
            flat["data.cache"] is not None
        )  # it may lie elsewhere, but its latents are rounded to float16
    changed = {k for k in flat_a.keys() | flat_b.keys() if flat_a.get(k) != flat_b.get(k)}
    return sorted(changed - FREE_ON_RESUME)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat


def _set(values: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted.strip():
        raise RecipeError(
            f"--set {override}: expected key=value, for example --set lr=1e-5 or --set condition.beta_m=25"
        )
    *parents, leaf = dotted.strip().split(".")
    for name in parents:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise RecipeError(f"--set {override}: {name} is not a mapping")
    values[leaf] = yaml.load(text, Loader=_Loader)


_TAGS = {"none", "pixel", "timenoise", "synthetic", "folder"}


def _place(location: tuple[int | str, ...]) -> str:
    # pydantic names the member of a tagged union between the key and its sub-key: no reader wrote that word there.
    parts = [
        str(p) for i, p in enumerate(location) if not (i == 1 and location[0] in ("condition", "data") and p in _TAGS)
    ]
    return ".".join(parts) or "recipe"


def _message(error: Any) -> str:
    given = error.get("input")
    if error["type"] == "extra_forbidden":
        return "unknown key"
    if error["type"] == "missing":
        return "missing"
    message = error["msg"].removeprefix("Value error, ")
    return f"{message[0].lower()}{message[1:]}" + (f" (given {given!r})" if not isinstance(given, dict) else "")
