"""Original checkpoint files to pipeline folders and back, a component at a time.

Nothing is held in memory twice: tensors of the checkpoint are views of the mapped file, and a component is let go when
it is written. What no component uses is kept beside them, so that the way back gives the same file.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from unleak.data.atomic import folder_written_whole, written_whole
from unleak.data.reading import parse_json, parse_values
from unleak.families.checkpoint import Wrapping, read_checkpoint, unwrap, wrap
from unleak.families.lvdm.convert import PREFIXES, Layout, from_original, to_original
from unleak.families.lvdm.original import (
    image_encoder_config,
    scheduler_config,
    text_encoder_config,
    unet_config,
    vae_config,
)
from unleak.families.lvdm.scheduler import LVDMScheduler
from unleak.families.lvdm.unet import LVDMUNet
from unleak.families.words import HOW_TO_GET, check_words, installed_words, read_words

__all__ = ["Converted", "Family", "components", "convert", "restore"]

LEFTOVERS = "original.safetensors"
SHARD = "2GB"
"""The most that one file of weights holds."""

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Family:
    """What tells one family from the other."""

    name: str
    pipeline: Callable[[], Any]
    """Gives its pipeline class, imported only then."""
    variants: Mapping[str, Config]
    """Name -> original configuration (`model.params`), with `condition_on` if that is not the frame rate."""
    variant_of: Callable[[Mapping[str, Tensor]], str]
    """The variant that a checkpoint is of; ValueError where it does not say."""
    image_projection: Callable[[Config], nn.Module]
    """The projection that a configuration describes."""


@dataclass(frozen=True)
class Converted:
    """What became of a checkpoint."""

    variant: str
    parameters: int
    leftovers: tuple[str, ...]
    """Tensors that nothing uses, kept in `original.safetensors`."""
    dropped: tuple[str, ...]
    """Entries that are no weights: the optimizer and its like."""
    tokenizer: str
    """The folder or file that the tokenizer came from."""


def components(family: Family, params: Config) -> dict[str, nn.Module]:
    """The networks of a configuration, without memory for their parameters (on the meta device)."""
    text = params["cond_stage_config"].get("params", {})
    image = (params.get("img_cond_stage_config") or params["cond_img_config"]).get("params", {})
    if text.get("layer", "penultimate") != "penultimate":
        raise ValueError(f"text encoder layer {text['layer']}: the published models read the penultimate one")
    first_stage, factor = params["first_stage_config"]["params"], params.get("scale_factor", 1.0)
    vision = CLIPVisionConfig(**image_encoder_config(image.get("arch", "ViT-H-14")))
    with torch.device("meta"):
        return {
            "unet": LVDMUNet(**unet_config(params["unet_config"]["params"])),
            "image_projection": family.image_projection(params),
            "vae": AutoencoderKL(**vae_config(first_stage, scaling_factor=factor)),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**text_encoder_config(text.get("arch", "ViT-H-14")))),
            "image_encoder": CLIPVisionModelWithProjection(vision),
        }


def convert(
    family: Family,
    source: str | Path,
    out: str | Path,
    *,
    variant: str | None = None,
    config: Config | None = None,
    tokenizer: str | Path | Callable[[], Path | None] = installed_words,
    base: str | Path | None = None,
    dtype: torch.dtype | None = None,
) -> Converted:
    """Write an original checkpoint as a pipeline folder, whole or not at all.

    `config` is an original configuration (the content of its YAML file), for what is none of the published variants.
    `tokenizer` is a folder or file with OpenCLIP's vocabulary, which checkpoints lack (see `read_words`), or a
    function that finds one, called once the checkpoint is known to be good. Components that a pruned
    checkpoint lacks are taken from the pipeline folder `base`. `dtype` None: as in the checkpoint. Raises ValueError,
    in one line, for a checkpoint of another family, for weights missing, unknown or of another shape.
    """
    content = read_checkpoint(source)
    try:
        state, wrapping = unwrap(content)
        _check_family(state, family)
        if config is None:
            variant = variant or family.variant_of(state)
            params = family.variants[variant]
        else:
            variant, params = "custom", config.get("model", config).get("params", config)
        parts = components(family, params)
        held, lacking = _held(state, parts, base)
        wanted = {part: _shapes(parts[part]) for part in held}
        filled, leftovers, layout = from_original(state, wanted)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    found = tokenizer() if callable(tokenizer) else tokenizer
    if found is None:
        raise ValueError(f"{source}: it holds no tokenizer; {HOW_TO_GET}")
    words = read_words(found)
    check_words(words, parts["text_encoder"].config, f"tokenizer {found}")
    with folder_written_whole(out) as folder:
        parameters = sum(tensor.numel() for part in filled.values() for tensor in part.values())
        for part in held:
            module = parts[part]
            # Thirds of a tensor share its memory, which the libraries' writers do not take; all else stays in the file.
            whole = {name: t if _is_whole(t) else t.clone() for name, t in filled.pop(part).items()}
            _assign(module, whole)
            del whole
            # Shards bound what loading in another precision holds at once.
            whole_part = module if dtype is None else module.to(dtype)
            whole_part.save_pretrained(folder / part, max_shard_size=SHARD)  # type: ignore[operator]
            module.to("meta")
        for part in lacking:
            assert base is not None
            shutil.copytree(Path(base) / part, folder / part)
        pipe = family.pipeline()(
            **parts,
            tokenizer=words,
            feature_extractor=CLIPImageProcessor(),
            scheduler=LVDMScheduler(**scheduler_config(params)),
            sample_height=8 * params["image_size"][0],
            sample_width=8 * params["image_size"][1],
            condition_on=params.get("condition_on", params.get("fps_condition_type", "fps")),
        )
        pipe.save_config(folder)
        for part in ("tokenizer", "feature_extractor", "scheduler"):
            getattr(pipe, part).save_pretrained(folder / part)
        about = {"wrapping": asdict(wrapping), "layout": asdict(layout)}
        kept = {key: tensor.clone(memory_format=torch.contiguous_format) for key, tensor in leftovers.items()}
        save_file(kept, folder / LEFTOVERS, metadata={name: json.dumps(value) for name, value in about.items()})
    known = {wrapping.entry, *wrapping.before, *wrapping.after}
    dropped = () if wrapping.entry is None else tuple(key for key in content if key not in known)
    return Converted(variant, parameters, tuple(leftovers), dropped, str(found))


_AGAIN = "convert the checkpoint again"


def _leftovers(file: Path) -> tuple[dict[str, Tensor], Wrapping, Layout]:
    """Read what `convert` kept beside the networks. Raises ValueError, in one line, for anything else."""
    try:
        with safe_open(file, "pt") as opened:
            about = {name: parse_json(text, dict, name) for name, text in (opened.metadata() or {}).items()}
        layout = parse_values(about["layout"], Layout, "layout")
        return load_file(file), parse_values(about["wrapping"], Wrapping, "wrapping"), layout
    except (SafetensorError, LookupError, ValueError) as error:
        raise ValueError(f"{file}: damaged ({error}); {_AGAIN}") from error


def _is_whole(tensor: Tensor) -> bool:
    """Whether it is all that its memory holds."""
    return tensor.untyped_storage().nbytes() == tensor.nbytes


def restore(folder: str | Path, out: str | Path) -> int:
    """Write a pipeline folder as an original checkpoint, `.safetensors` or what `torch.save` writes; its tensors.

    A folder that was converted gives the same tensors under the same names in the same order, with the plain values
    that stood beside them (epoch, global_step). Any other folder gives the tensors that its networks have.
    """
    folder, out = Path(folder), Path(out)
    parts = {part: _weights(folder / part) for part in PREFIXES}
    leftovers, wrapping, layout = dict[str, Tensor](), Wrapping(), Layout()
    if (folder / LEFTOVERS).is_file():
        leftovers, wrapping, layout = _leftovers(folder / LEFTOVERS)
    try:
        state = to_original(parts, leftovers, layout)
    except (LookupError, RuntimeError) as error:
        raise ValueError(f"{folder / LEFTOVERS}: it is of other networks than those beside it; {_AGAIN}") from error
    with written_whole(out) as temporary:
        if out.suffix == ".safetensors":
            save_file({key: tensor.contiguous() for key, tensor in state.items()}, temporary)
        else:
            torch.save(wrap(state, wrapping), temporary)
    return len(state)


def _check_family(state: Mapping[str, Tensor], family: Family) -> None:
    """Raise ValueError for a checkpoint of another network."""
    first = state.get(PREFIXES["unet"] + "input_blocks.0.0.weight")
    if first is None:
        spatio_temporal = any(".temporal_transformer_blocks." in key for key in state)
        hint = "; it looks like Stable Video Diffusion: give svd" if spatio_temporal else ""
        raise ValueError(
            f"not a checkpoint of {family.name}: it has no {PREFIXES['unet']}input_blocks.0.0.weight{hint}"
        )
    expected = {params["unet_config"]["params"]["in_channels"] for params in family.variants.values()}
    if first.shape[1] not in expected:
        other = {8: "dynamicrafter", 4: "videocrafter1"}.get(first.shape[1])
        raise ValueError(
            f"not a checkpoint of {family.name}: its network takes {first.shape[1]} channels, not "
            f"{min(expected)}{f'; give {other}' if other else ''}"
        )


def _held(
    state: Mapping[str, Tensor], parts: Mapping[str, nn.Module], base: str | Path | None
) -> tuple[list[str], list[str]]:
    """The components that a checkpoint holds, and those that are to come from `base`."""
    held = [part for part in parts if any(key.startswith(PREFIXES[part]) for key in state)]
    lacking = [part for part in parts if part not in held]
    for part in lacking:
        if base is None:
            raise ValueError(
                f"pruned, it has no {part} ({PREFIXES[part]}...); give --base FOLDER, a converted pipeline that has it"
            )
        if {name: tensor.shape for name, tensor in _weights(Path(base) / part).items()} != _shapes(parts[part]):
            raise ValueError(f"{Path(base) / part} is not the {part} of this model")
    return held, lacking


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def _assign(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    module.load_state_dict(tensors, assign=True, strict=True)


def _weights(folder: Path) -> dict[str, Tensor]:
    """All tensors in the safetensors files of a component."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder}: no weights (*.safetensors) there")
    try:
        return {name: tensor for file in files for name, tensor in load_file(file).items()}
    except SafetensorError as error:
        raise ValueError(f"{folder}: damaged ({error})") from error
