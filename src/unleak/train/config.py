"""Training recipes: what a YAML file may say, checked at once, one line per problem."""

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from unleak.data.files import open_regular
from unleak.data.reading import shown
from unleak.train.recipe_files import find_recipe

_LONGEST_PATH = 4096  # bytes, as Linux has it


def _named(value: Any) -> Any:
    # An empty name would be the current folder.
    if isinstance(value, str) and (not value or "\0" in value):
        raise ValueError("must name a file or folder; it is empty or holds a zero byte")
    if isinstance(value, str) and len(value.encode(errors="replace")) > _LONGEST_PATH:
        raise ValueError(f"must name a file or folder; it is longer than {_LONGEST_PATH} bytes")
    return value


# The bounds are far outside of what trains anything: what lies beyond is a slip of the pen, and would end in a process
# without memory or in a loss that is not finite, hours later.
Positive = Annotated[float, Field(gt=0, le=1e6)]
NonNegative = Annotated[float, Field(ge=0, le=1e6)]
Logarithm = Annotated[float, Field(ge=-20, le=20)]
Spread = Annotated[float, Field(gt=0, le=20)]
Share = Annotated[float, Field(ge=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(ge=0.001, le=240)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Steps = Annotated[int, Field(ge=1, lt=10**8)]  # a checkpoint's name has eight digits
Count = Annotated[int, Field(ge=1, le=10_000)]
Clips = Annotated[int, Field(ge=1, le=65_536)]
Side = Annotated[int, Field(ge=1, le=8192)]
Workers = Annotated[int, Field(ge=0, le=256)]
Name = Annotated[Path, BeforeValidator(_named)]
Words = Annotated[str, Field(max_length=10_000)]


class RecipeError(ValueError):
    """A recipe that cannot be run; the message has one line per problem."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class SigmaConfig(_Strict):
    """ln sigma ~ N(p_mean, p_std^2), mixed with a share log-uniform on `uniform_range`. Defaults: the paper's."""

    p_mean: Logarithm = -1.2
    p_std: Spread = 1.2
    uniform_share: ShareBelowOne = 0.0
    uniform_range: tuple[Positive, Positive] = (10.0, 700.0)
    sigma_data: Positive = 1.0

    @field_validator("uniform_range")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise ValueError(f"must be [low, high] with low < high, given {list(value)}")
        return value


class FlowConfig(_Strict):
    """The law of a rectified flow's sigma: the logit of q normal (`logit-normal`) or q uniform, then shifted:
    sigma = shift q / (1 + (shift - 1) q). `shift: null`: the one the pipeline samples with."""

    law: Literal["logit-normal", "uniform"] = "logit-normal"
    mean: Logarithm = 0.0
    std: Spread = 1.0
    shift: Positive | None = None


class CleanConfig(_Strict):
    """A condition with constant pixel noise before the VAE (0: none); the network is given `noise_aug_strength`.

    `first_frame_sigma`: where the image is the noisy video's own first frame (LTX-Video, Wan 2.2 5B), that frame is
    noised to a level drawn evenly between 0 and this, or the video's own if that is less. The network is given it.
    """

    noise: Literal["none"]
    noise_aug_strength: NonNegative = 0.0
    first_frame_sigma: Share = 0.0
    dropout: Share = 0.1


class PixelNoiseConfig(_Strict):
    """The naive baseline: pixel noise of strength s before the VAE; ln s ~ N(p_mean, p_std^2). The network gets s."""

    noise: Literal["pixel"]
    p_mean: Logarithm = -1.2
    p_std: Annotated[float, Field(ge=0, le=20)] = 1.2
    dropout: Share = 0.1


class TimeNoiseConfig(_Strict):
    """TimeNoise on the condition: its latents after the VAE, its image tokens, or both, drawn apart.

    `on: null`: tokens for VideoCrafter1, which has no others, else latents. SVD: latents are raw VAE output; t is the
    quantile of sigma under the training distribution; the network is given beta in place of `noise_aug_strength`
    (`told: false`: it is given 0, as when sampling); `reference` gives the reference implementation's t = sigma / 700
    and its one scalar of noise per clip; `per_frame` noises each repeated frame independently, which elsewhere is
    always so. Elsewhere: t is timestep / T, or the flow's sigma; the network is given no level.
    """

    noise: Literal["timenoise"]
    beta_m: NonNegative = 100.0
    a: Positive = 5.0
    spread: NonNegative = 1.0
    mu_max: NonNegative = 1.0
    on: Literal["latents", "tokens", "both"] | None = None
    told: bool = True
    per_frame: bool = False
    reference: bool = False
    dropout: Share = 0.1

    # Contradictions are checked with the later of two fields, so that they are reported beside every other fault.
    @field_validator("reference")
    @classmethod
    def _reference_is_whole(cls, value: bool, others: Any) -> bool:
        if value and others.data.get("per_frame"):
            raise ValueError("per_frame and reference exclude each other: the reference draws one scalar per clip")
        if value and not others.data.get("told", True):
            raise ValueError("told: false and reference exclude each other: the reference gives the network beta")
        return value


ConditionConfig = Annotated[CleanConfig | PixelNoiseConfig | TimeNoiseConfig, Field(discriminator="noise")]


class SyntheticData(_Strict):
    """Procedural clips of the photos in a folder; `motion` holds fields of `unleak.data.synthetic.MotionRange`."""

    kind: Literal["synthetic"]
    photos: Name
    size: Side = 64
    num_frames: Count = 12
    seed: Seed = 0
    length: Annotated[int, Field(ge=1, le=10**8)] = 10_000
    fps: Rate = 6.0
    motion_bucket_id: NonNegative = 127.0
    motion: dict[str, Annotated[float, Field(ge=-1e6, le=1e6)]] = {}
    cache: Name | None = None
    workers: Workers = 0

    @field_validator("motion")
    @classmethod
    def _known_motion(cls, value: dict[str, float]) -> dict[str, float]:
        from unleak.data.synthetic import MotionRange

        known = [f.name for f in fields(MotionRange)]
        if unknown := sorted(set(value) - set(known)):
            raise ValueError(f"unknown {', '.join(unknown)}; known are {', '.join(known)}")
        if below := [name for name, number in value.items() if number < 0]:
            raise ValueError(f"{', '.join(below)} must be 0 or more: ranges go as far in both directions")
        if above := [name for name in ("still", "object_share", "zoom_share") if value.get(name, 0) > 1]:
            raise ValueError(f"{', '.join(above)} must be at most 1: a share of the clips")
        if value.get("directions", 0) % 1:
            raise ValueError("directions must be a whole number; 0 is any")
        if value.get("min_speed", 0) > (fastest := value.get("max_speed", MotionRange.max_speed)):
            raise ValueError(f"min_speed must be at most max_speed, {fastest:g}")
        return value


class _Videos(_Strict):
    """Clips of videos: `num_frames` at `fps`, or every n-th frame with n drawn from `stride` = [least, most] and made
    smaller where the video is too short for it; scaled to cover `size` = [height, width] and cropped at the centre.

    Of every video `clips_per_video` clips are taken an epoch. Where they begin, which stride they have, whether they
    are mirrored (`flip`, every second one) and which frame is the image (`condition_frame`) is drawn once for each of
    them: every epoch, and so a cache, has the same clips, and more clips a video are more augmentation.
    `buckets`, [height, width, frames] each, take the place of `size` and `num_frames`: a video goes to the one nearest
    in shape, and a step has clips of one bucket. A clip that cannot be read is named and another takes its place, up
    to the share `max_failures` of the videos; one not read within `seconds` counts as such.
    """

    size: tuple[Side, Side] = (320, 512)
    num_frames: Count = 16
    buckets: Annotated[list[tuple[Side, Side, Count]], Field(max_length=1000)] = []
    seed: Seed = 0
    fps: Rate | None = 3.0
    stride: Annotated[tuple[Count, Count] | None, Field(validate_default=True)] = None
    clips_per_video: Count = 1
    flip: bool = False
    condition_frame: Literal["first", "random"] = "first"
    motion_bucket_id: NonNegative = 20.0
    max_failures: Share = 0.05
    seconds: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    cache: Name | None = None
    workers: Workers = 0

    @field_validator("stride")
    @classmethod
    def _one_rate(cls, value: tuple[int, int] | None, others: Any) -> tuple[int, int] | None:
        if value and value[0] > value[1]:
            raise ValueError(f"must be [least, most], given {list(value)}")
        if "fps" in others.data and (value is None) == (others.data["fps"] is None):
            raise ValueError("give one of fps and stride, and null for the other")
        return value


class FolderData(_Videos):
    """The videos of a folder; what is seen in NAME.mp4 may be written in NAME.txt."""

    kind: Literal["folder"]
    path: Name


class ListData(_Videos):
    """The videos of a list with their captions: a .csv with a header or a .jsonl; see `unleak.data.sources`.

    Paths are relative to the list. `allow_outside`: they may lead out of the list's folder.
    """

    kind: Literal["list"]
    path: Name
    allow_outside: bool = False


class WebVidData(_Videos):
    """WebVid's table of videoid, contentUrl, duration, page_dir and name, with the videos under the folder `videos`, as
    PAGE_DIR/ID.mp4 or ID.mp4. WebVid itself is withdrawn: README names sets that are not."""

    kind: Literal["webvid"]
    path: Name
    videos: Name


DataConfig = Annotated[SyntheticData | FolderData | ListData | WebVidData, Field(discriminator="kind")]


class LoraConfig(_Strict):
    """Low-rank adapters of the network's linear layers, `targets`: those of attention, all of its blocks' layers
    (`blocks`), or a list of endings of their names. `alpha: null`: as the rank, so that they count once."""

    rank: Side = 16
    alpha: Positive | None = None
    dropout: ShareBelowOne = 0.0
    targets: Literal["attention", "blocks"] | Annotated[list[Words], Field(max_length=1000)] = "attention"


class ValidationConfig(_Strict):
    """Videos of the photos in a folder while training: every `every` steps, plain and from `start`, with their motion
    scores. `start: null`: the model's recommended one. `caption` is the prompt of all, where the model takes one."""

    photos: Name
    every: Steps = 1000
    most: Count = 4
    steps: Count = 25
    start: Annotated[str, Field(max_length=100)] | None = None
    caption: Words = ""
    seed: Seed = 0


_PARTS = ("all", "full", "lora", "temporal", "spatial")


def _patterns(value: Any) -> Any:
    # Before the union is tried: each of its members would report the same fault.
    listed = isinstance(value, list) and value and all(isinstance(pattern, str) for pattern in value)
    if value not in _PARTS and not listed:
        names = ", ".join(map(repr, _PARTS))
        raise ValueError(f"must be one of {names}, or a list of patterns of parameter names such as ['*.attn2.*']")
    return "all" if value == "full" else value


class Recipe(_Strict):
    """One training run. `batch_size` counts the clips of one optimizer step, over all processes and all `accumulation`
    pieces, so that a recipe means the same on any machine."""

    model: Annotated[str, Field(min_length=1, max_length=_LONGEST_PATH)]
    init: Literal["pretrained", "random"] = "pretrained"
    experts: Literal["high", "low", "both"] | None = None
    """Of Wan 2.2: which of its two networks are trained."""
    trainable: Annotated[Literal["all", "lora", "temporal", "spatial"] | list[Words], BeforeValidator(_patterns)] = (
        "all"
    )
    """`all` (or `full`); adapters, `lora`; the layers that work along time, or all others; patterns of names."""
    lora: Annotated[LoraConfig | None, Field(validate_default=True)] = None
    output: Name
    data: DataConfig

    steps: Steps
    batch_size: Clips = 1
    accumulation: Clips = 1
    seed: Seed = 0
    sigma: SigmaConfig = SigmaConfig()
    flow: FlowConfig = FlowConfig()
    condition: ConditionConfig
    latents: Literal["mode", "sample"] = "mode"
    """x_0 as the VAE's posterior has it: its mode, or a sample drawn anew in every step (as the LVDM families were)."""

    optimizer: Literal["adamw", "adamw8bit", "muon"] = "adamw"
    lr: Annotated[float, Field(gt=0, le=10)] = 3e-5
    warmup_steps: Annotated[int, Field(ge=0, lt=10**8)] = 0
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.999)
    weight_decay: NonNegative = 0.01
    clip: Positive | None = 1.0
    motion_readout: NonNegative = 0.0
    """Weight of the squared error, (px/frame)^2, of a linear read-out of the motion (train/readout.py); 0: none."""
    ema_decay: Share = 0.9999
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    gradient_checkpointing: bool = False
    frozen_dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Precision of the weights that are not trained; those that are have float32."""
    sharding: Literal["none", "fsdp"] = "none"
    """Whether each process has a part of the weights (FSDP2), or all of them."""
    validation: ValidationConfig | None = None

    checkpoint_every: Steps = 500
    keep: Count = 2
    log_every: Steps = 50
    max_hours: Positive | None = None
    report_to: Literal["none", "tensorboard", "wandb"] = "none"
    dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Of the pipeline that a run hands over."""

    @field_validator("lora")
    @classmethod
    def _adapters_are_trained(cls, value: LoraConfig | None, others: Any) -> LoraConfig | None:
        if value and others.data.get("trainable", "lora") != "lora":
            raise ValueError("is of trainable: lora; say that, or leave lora away")
        return value or (LoraConfig() if others.data.get("trainable") == "lora" else None)

    @field_validator("motion_readout")
    @classmethod
    def _motion_is_known(cls, value: float, others: Any) -> float:
        if value and "data" in others.data and others.data["data"].kind != "synthetic":
            raise ValueError("needs clips of known motion: data.kind: synthetic, or motion_readout: 0")
        return value

    @field_validator("accumulation")
    @classmethod
    def _divisible(cls, value: int, others: Any) -> int:
        if others.data.get("batch_size", value) % value:
            raise ValueError(
                f"batch_size {others.data['batch_size']} cannot be cut into {value} equal pieces: "
                "choose an accumulation that divides it"
            )
        return value


# Keys that change when a run stops and what it writes, but not what it computes: free to differ on resume.
FREE_ON_RESUME = {
    *("steps", "checkpoint_every", "keep", "log_every", "max_hours", "report_to", "dtype", "output", "sharding"),
    *("data.workers", "data.seconds", "data.max_failures"),
}


class _Loader(yaml.SafeLoader):
    """YAML 1.2's words and numbers: PyYAML follows 1.1, where `no` is false, 3e-5 a string and 1:30 is 90.

    No aliases, of which a few lines can mean gigabytes, and no key twice, of which the first would be lost.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            alias = self.peek_event()
            raise yaml.MarkedYAMLError(problem=f"*{alias.anchor} is an alias", problem_mark=alias.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = set[str]()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                raise yaml.MarkedYAMLError(problem="a key that is no word", problem_mark=key.start_mark)
            if key.value in keys:
                raise yaml.MarkedYAMLError(problem=f"{key.value} is given twice", problem_mark=key.start_mark)
            keys.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:null"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in (
    ("bool", r"(true|false)$", "tTfF"),
    ("int", r"[-+]?\d+$", "-+0123456789"),
    ("float", r"([-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?\.inf|\.nan)$", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern, re.IGNORECASE), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))

_MOST_BYTES = 2**20


def load_recipe(path: Path | str, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe, by its file or by the name of one that ships with unleak, and apply `key.sub=value` overrides.

    Raises RecipeError with one line for every problem.
    """
    try:
        path = find_recipe(path)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    with open_regular(path) as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise RecipeError(f"{path}: more than 1 MiB, so no recipe; give the YAML file of one")
    try:
        values = _values(content.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not YAML: no text in UTF-8; give the file of a recipe") from error
    if not isinstance(values, dict):
        raise RecipeError(
            f"{path}: expected a mapping of recipe keys, found {type(values).__name__ if values else 'nothing'}"
        )
    for override in overrides or []:
        _set(values, override)
    recipe = parse_recipe(values, source=str(path))
    if (recipe.output / "recipe.yaml").resolve() == path.resolve() and not (recipe.output / "checkpoints").exists():
        raise RecipeError(f"{path}: output: this recipe itself would be replaced; choose another folder")
    return recipe


def _values(text: str, source: str) -> Any:
    """Read a text in YAML."""
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise RecipeError(f"{source}: not YAML that is read: nested too deeply; a recipe has two levels") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:  # of tags: !!bool maybe, !!int many
        raise RecipeError(f"{source}: not YAML that is read: {' '.join(str(error).split())}; mend it") from error


def parse_recipe(values: dict[str, Any], *, source: str = "recipe") -> Recipe:
    """Make a recipe of plain values, as YAML gives them."""
    try:
        # The strict rules of JSON: a path may come as text and a pair as a list, a number may not.
        return Recipe.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise RecipeError("\n".join(f"{source}: {_place(e['loc'])}{_message(e)}" for e in error.errors())) from error


def dump_recipe(recipe: Recipe) -> str:
    """Write the resolved recipe as YAML with every default; `load_recipe` reads it back."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def differing_keys(a: Recipe, b: Recipe) -> list[str]:
    """Return the dotted keys whose values differ, of those that change what the run computes."""
    flat_a, flat_b = _flat(a.model_dump(mode="json")), _flat(b.model_dump(mode="json"))
    for flat in (flat_a, flat_b):
        flat["data.cache"] = (
            flat["data.cache"] is not None
        )  # it may lie elsewhere, but its latents are rounded to float16
    # The learning rate of every step depends on the last one, unless it is constant.
    free = FREE_ON_RESUME - (set() if a.schedule == "constant" else {"steps"})
    changed = {k for k in flat_a.keys() | flat_b.keys() if flat_a.get(k) != flat_b.get(k)} - free
    return sorted(k for k in changed if k.split(".")[0] != "validation")


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat


def _set(values: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not all(name.strip() for name in dotted.split(".")):
        raise RecipeError(
            f"--set {override}: expected key=value, for example --set lr=1e-5 or --set condition.beta_m=25"
        )
    *parents, leaf = dotted.strip().split(".")
    for name in parents:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise RecipeError(f"--set {override}: {name} is not a mapping")
    values[leaf] = _values(text, f"--set {override}")


_MEMBERS: Mapping[str, type[_Strict]] = {
    "none": CleanConfig,
    "pixel": PixelNoiseConfig,
    "timenoise": TimeNoiseConfig,
    "synthetic": SyntheticData,
    "folder": FolderData,
    "list": ListData,
    "webvid": WebVidData,
    "lora": LoraConfig,
    "flow": FlowConfig,
    "validation": ValidationConfig,
}


def _place(location: tuple[int | str, ...]) -> str:
    # pydantic names the member of a tagged union between the key and its sub-key: no reader wrote that word there.
    of_union = location[:1] in (("condition",), ("data",))
    parts = [str(part) for k, part in enumerate(location) if not (k == 1 and of_union and part in _MEMBERS)]
    return "".join(f"{part}." for part in parts)[:-1] + ": " if parts else ""


_EXAMPLES = {
    "condition": "{noise: timenoise, beta_m: 15}",
    "data": "{kind: folder, path: clips}",
    "sigma": "{p_mean: -1.2, p_std: 1.2}",
}


def _message(error: Any) -> str:
    given, example = error.get("input"), _EXAMPLES.get(str([*error["loc"], ""][0]))
    match error["type"]:
        case "extra_forbidden":
            return f"unknown key; {_known(error['loc'])}"
        case "missing":
            return "missing"
        case "union_tag_invalid":
            key, known = error["ctx"]["discriminator"].strip("'"), error["ctx"]["expected_tags"]
            return f"{key} should be one of {known} (given {shown(error['ctx']['tag'])})"
        case "json_invalid":
            return f"holds what no text can hold ({error['msg']}); mend it"
        case "model_type" | "model_attributes_type" | "dict_type" if example and len(error["loc"]) == 1:
            return f"must be a mapping such as {example} (given {shown(given)})"
        case "union_tag_not_found":
            return f"{error['ctx']['discriminator'].strip(chr(39))} is missing: say for example {example}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{message[0].lower()}{message[1:]}" + (f" (given {shown(given)})" if not isinstance(given, dict) else "")


def _known(location: tuple[int | str, ...]) -> str:
    """Suggest the key that may have been meant by the last of `location`, else name all keys."""
    *parents, given = map(str, location)
    model = Recipe if not parents else _MEMBERS.get(parents[-1], SigmaConfig)
    close = get_close_matches(given, model.model_fields, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(model.model_fields)}"
