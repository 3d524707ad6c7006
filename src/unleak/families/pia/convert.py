"""PIA's own checkpoint, `pia.ckpt`, to diffusers' motion adapter and back.

It holds the motion modules and the input convolution of 9 channels (noisy latents, condition strength, photo) under
AnimateDiff's names. What PIA's training writes holds the whole network: the rest of it is the base's, and is checked
to be no more than that.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import MotionAdapter, UNet2DConditionModel
from diffusers.models.embeddings import SinusoidalPositionalEmbedding
from safetensors.torch import save_file
from torch import Tensor

from unleak.data.atomic import folder_written_whole
from unleak.families.checkpoint import read_checkpoint, unwrap
from unleak.families.pia.pipeline import assemble

__all__ = ["adapter_of", "convert", "convert_pipeline", "original_of", "read_original", "write_checkpoint"]

_NAMES = (
    (".temporal_transformer.", "."),
    (".attention_blocks.0.pos_encoder.pe", ".pos_embed.pe"),
    (".attention_blocks.0.", ".attn1."),
    (".attention_blocks.1.", ".attn2."),
    (".norms.0.", ".norm1."),
    (".norms.1.", ".norm2."),
    (".ff_norm.", ".norm3."),
)
_SECOND_POSITIONS = ".attention_blocks.1.pos_encoder.pe"
"""AnimateDiff keeps the table of positions, a constant, with each attention; diffusers once for both."""


def convert(source: str | Path, out: str | Path) -> MotionAdapter:
    """Write the motion adapter in `source`, a checkpoint file or a folder with one pia.ckpt, to the folder `out`."""
    adapter = adapter_of(read_original(source))
    with folder_written_whole(out) as folder:
        adapter.save_pretrained(folder, safe_serialization=True)
    return adapter


def convert_pipeline(
    source: str | Path, base: str | Path, out: str | Path, *, personalised: bool = False, norms: str | None = None
) -> Any:
    """Write a whole PIAPipeline to the folder `out`: `source` on `base`, a folder or Hub id of Stable Diffusion 1.5.

    See `assemble` for `personalised` and `norms`. If `source` holds a whole network, only PIA's part is taken.
    """
    from diffusers import StableDiffusionPipeline

    plain = StableDiffusionPipeline.from_pretrained(base, safety_checker=None, requires_safety_checker=False)
    adapter = adapter_of(read_original(source), base=plain.unet)
    pipe = assemble(plain, adapter, personalised=personalised, norms=norms, share=True)
    with folder_written_whole(out) as folder:
        pipe.save_pretrained(folder, safe_serialization=True, max_shard_size="2GB")
    return pipe


def adapter_of(
    original: Mapping[str, Tensor],
    *,
    base: UNet2DConditionModel | None = None,
    num_attention_heads: int = 8,
    norm_num_groups: int = 32,
) -> MotionAdapter:
    """The motion adapter in PIA's checkpoint. Sizes are read off the weights; heads and groups cannot be.

    ValueError for weights that are missing, of another shape or not known; those of the image network are known if
    `base` is given and has them all.
    """
    own = {name: tensor for name, tensor in original.items() if _is_own(name)}
    if "conv_in.weight" not in own or not any("motion_modules" in name for name in own):
        raise ValueError(
            f"no checkpoint of PIA: {'no motion modules' if 'conv_in.weight' in own else 'no conv_in'} among its"
            f" {len(original)} tensors"
        )
    rest = original.keys() - own.keys()
    known = {name for name in base.state_dict() if not _is_own(name)} if base is not None else set()
    if rest and rest != known:
        wrong = sorted(rest ^ known if known else rest)
        hint = "" if base is not None else "; of a whole network, give the base it belongs to"
        raise ValueError(f"not what PIA's checkpoint has: {', '.join(wrong[:3])} (of {len(wrong)}){hint}")
    with torch.device("meta"):
        adapter = MotionAdapter(
            **_sizes(own), motion_num_attention_heads=num_attention_heads, motion_norm_num_groups=norm_num_groups
        )
    weights = {_renamed(name): tensor for name, tensor in own.items() if not name.endswith(_SECOND_POSITIONS)}
    positions = {
        name: SinusoidalPositionalEmbedding(tensor.shape[2], tensor.shape[1]).pe
        for name, tensor in adapter.state_dict().items()
        if name.endswith(".pe")
    }
    for name, constant in positions.items():
        if name in weights and not torch.allclose(weights[name].float(), constant, atol=2e-3):  # half precision
            raise ValueError(f"{name}: not the sinusoidal positions that diffusers has")
    try:
        adapter.load_state_dict({name: tensor.float() for name, tensor in (weights | positions).items()}, assign=True)
    except RuntimeError as error:
        raise ValueError(f"not PIA's checkpoint: {' '.join(str(error).split())[:300]}") from error
    return adapter.eval()


def original_of(network: Any) -> dict[str, Tensor]:
    """PIA's checkpoint of a motion adapter, or of the UNet of a PIAPipeline: motion modules and `conv_in`."""
    original = {}
    for name, tensor in network.state_dict().items():
        if not _is_own(name):
            continue
        named = _original_name(name)
        original[named] = tensor
        if named.endswith(".attention_blocks.0.pos_encoder.pe"):
            original[named.replace(".attention_blocks.0.", ".attention_blocks.1.")] = tensor.clone()
    return original


def read_original(source: str | Path) -> dict[str, Tensor]:
    """The tensors of a `.ckpt` or `.safetensors` file, read as data; of a folder, those of the one such file in it."""
    path = Path(source)
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix in (".ckpt", ".safetensors"))
        if len(found) != 1:
            raise ValueError(f"{path}: {len(found)} checkpoints in it; give the one that is PIA's")
        path = found[0]
    try:
        return unwrap(read_checkpoint(path))[0]
    except ValueError as error:
        raise ValueError(f"{error}" if str(path) in str(error) else f"{path}: {error}") from error


def write_checkpoint(original: Mapping[str, Tensor], path: str | Path) -> None:
    """Write what `original_of` gives: `.safetensors`, or any other ending as PIA's own `.ckpt`."""
    path = Path(path)
    tensors = {name: tensor.contiguous() for name, tensor in original.items()}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)


def _is_own(name: str) -> bool:
    return "motion_modules" in name or name.startswith("conv_in.")


def _renamed(name: str) -> str:
    for theirs, ours in _NAMES:
        name = name.replace(theirs, ours)
    return name


def _original_name(name: str) -> str:
    if ".motion_modules." not in name:
        return name
    for theirs, ours in reversed(_NAMES[1:]):
        name = name.replace(ours, theirs)
    return re.sub(r"(\.motion_modules\.\d+)\.", r"\1.temporal_transformer.", name)


def _sizes(own: Mapping[str, Tensor]) -> dict[str, Any]:
    """The configuration of the adapter, as far as weights tell."""

    def count(pattern: str) -> int:
        """How many numbers stand in the place of the group of `pattern`."""
        return len({match[1] for name in own if (match := re.match(pattern, name))})

    blocks = range(count(r"down_blocks\.(\d+)\."))
    first = "down_blocks.0.motion_modules.0.temporal_transformer"
    widths = tuple(len(own[f"down_blocks.{i}.motion_modules.0.temporal_transformer.norm.weight"]) for i in blocks)
    return {
        "block_out_channels": widths,
        "motion_layers_per_block": count(r"down_blocks\.0\.motion_modules\.(\d+)\."),
        "motion_transformer_layers_per_block": count(rf"{re.escape(first)}\.transformer_blocks\.(\d+)\."),
        "motion_mid_block_layers_per_block": max(count(r"mid_block\.motion_modules\.(\d+)\."), 1),
        "motion_max_seq_length": own[f"{first}.transformer_blocks.0.attention_blocks.0.pos_encoder.pe"].shape[1],
        "use_motion_mid_block": any(name.startswith("mid_block.") for name in own),
        "conv_in_channels": own["conv_in.weight"].shape[1],
    }
