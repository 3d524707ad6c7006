"""Original checkpoints of LVDM's descendants <-> our components: names, shapes, and nothing lost. Pure functions.

For each of our parameters there is one place in the original, named by a function here: a tensor, a third of one
(OpenCLIP keeps queries, keys and values together) or its transpose. Both directions follow from that one function.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Size, Tensor

__all__ = ["PREFIXES", "Layout", "Place", "from_original", "to_original"]

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Place:
    """Where a parameter is in the original: `name` (below the prefix of its component) and which part of it."""

    name: str
    third: int | None = None
    transposed: bool = False


PREFIXES: Mapping[str, str] = {
    "unet": "model.diffusion_model.",
    "image_projection": "image_proj_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.model.",
    "image_encoder": "embedder.model.visual.",
}
"""Components -> where they are in a checkpoint."""

# What a checkpoint holds beside the networks' parameters: nothing that is used reads it.
_LEFTOVERS = (
    r"[^.]+",  # the schedule's buffers, which follow from a few numbers
    r"model_ema\..+",
    r"first_stage_model\.loss\..+",
    r"(cond_stage_model|embedder)\.(mean|std)",
    r"(cond_stage_model|embedder)\.model\.(logit_scale|text_projection|attn_mask)",
    r"embedder\.model\.(positional_embedding|token_embedding\.weight|ln_final\.(weight|bias))",
    r"cond_stage_model\.model\.transformer\.resblocks\.\d+\..+",  # the last layer: the original stops before it
)

# Older and newer names of the same parameters of the UNet -> those of the published checkpoints.
_ALIASES = {"framestride_embed.": "fps_embedding.", ".temporal_conv.": ".temopral_conv."}


@dataclass(frozen=True)
class Layout:
    """How a checkpoint differs from the published form, so that `to_original` can give the same again."""

    aliases: tuple[str, ...] = ()
    """Names in use of `_ALIASES`."""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes of parameters that are not as published (attention projected by 1x1 convolutions)."""
    order: tuple[str, ...] = ()
    """Names of all tensors in the order of the file; what they do not name comes last."""


def from_original(
    state: State, wanted: Mapping[str, Mapping[str, Size]]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor], Layout]:
    """Parameters of the components, what of `state` they do not use, and how `state` was laid out.

    `wanted` has the names and shapes of each component's parameters. Strict: every one is filled, every tensor is used
    once or is of a kind that no component needs; else ValueError says which are not. Values are views, not copies.
    """
    layout_aliases = tuple(alias for alias in _ALIASES if any(alias in key for key in state))
    canonical = {_renamed(key, layout_aliases): key for key in state}
    components = dict[str, dict[str, Tensor]]()
    shapes, used, missing = dict[str, tuple[int, ...]](), set[str](), list[str]()
    for component, parameters in wanted.items():
        place_of = _places(component, parameters)
        filled = components[component] = dict[str, Tensor]()
        for name, shape in parameters.items():
            place = place_of(name)
            key = PREFIXES[component] + place.name
            if key not in canonical:
                missing.append(key)
                continue
            used.add(key)
            original = state[canonical[key]]
            tensor = _part(original, place)
            if _significant(tensor.shape) != _significant(shape):
                raise ValueError(f"{canonical[key]} is {list(tensor.shape)}, expected {list(shape)}")
            if place.third is None and tuple(original.shape) != _original_shape(component, place, shape):
                shapes[key] = tuple(original.shape)
            filled[name] = tensor.reshape(shape)
    rest = {key: state[canonical[key]] for key in canonical if key not in used}
    if missing:
        raise ValueError(f"{_some(missing)} missing")
    if unknown := [key for key in rest if not any(re.fullmatch(kind, key) for kind in _LEFTOVERS)]:
        raise ValueError(f"{_some(unknown)} not known")
    return components, rest, Layout(layout_aliases, shapes, tuple(state))


def to_original(
    components: Mapping[str, State], leftovers: State | None = None, layout: Layout | None = None
) -> dict[str, Tensor]:
    """The inverse: one dictionary in the original's names and shapes, as `layout` has them if given."""
    layout = layout or Layout()
    state = dict(leftovers or {})
    for component, parameters in components.items():
        place_of = _places(component, parameters)
        thirds = dict[str, list[Tensor]]()
        for name, tensor in parameters.items():
            place = place_of(name)
            key = PREFIXES[component] + place.name
            if place.third is not None:
                thirds.setdefault(key, [tensor] * 3)[place.third] = tensor
            else:
                shape = layout.shapes.get(key) or _original_shape(component, place, tensor.shape)
                state[key] = (tensor.T if place.transposed else tensor).reshape(shape)
        state |= {key: torch.cat(parts) for key, parts in thirds.items()}
    back = {_ALIASES[alias]: alias for alias in layout.aliases}
    named = {_replaced(key, back): tensor for key, tensor in state.items()}
    first = {name: named[name] for name in layout.order if name in named}
    return first | named


def _renamed(key: str, aliases: Iterable[str]) -> str:
    return _replaced(key, {alias: _ALIASES[alias] for alias in aliases})


def _replaced(key: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        key = key.replace(old, new)
    return key


def _part(tensor: Tensor, place: Place) -> Tensor:
    if place.third is not None:
        return tensor.chunk(3)[place.third]
    return tensor.T if place.transposed else tensor


def _significant(shape: Iterable[int]) -> list[int]:
    return [size for size in shape if size != 1]


def _original_shape(component: str, place: Place, shape: Size) -> tuple[int, ...]:
    """Shape in a published checkpoint of what has `shape` with us: convolutions, and axes of size one."""
    name, ours = place.name, tuple(shape)
    if place.transposed:
        return ours[::-1]
    if re.search(r"^init_attn\.0\.proj_(in|out)\.weight|temopral_conv\.\w+\.\d\.weight", name) and len(ours) in (2, 4):
        return (*ours, 1)
    if component == "vae" and re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name):
        return (*ours, 1, 1)
    if component == "image_projection" and name == "latents":
        return (1, *ours)
    return ours


def _some(keys: list[str]) -> str:
    shown = ", ".join(keys[:3])
    return f"{shown} and {len(keys) - 3} more are" if len(keys) > 3 else f"{shown} {'is' if len(keys) == 1 else 'are'}"


# Names, ours -> the original's. Rules apply in order, each at every place.

Rule = tuple[str, str | Callable[[re.Match[str]], str]]

_UNET: tuple[Rule, ...] = (
    (r"^time_embed\.linear_(\d)", lambda m: f"time_embed.{2 * int(m[1]) - 2}"),
    (r"^fps_embed\.linear_(\d)", lambda m: f"fps_embedding.{2 * int(m[1]) - 2}"),
    (r"^first_attention\.", "init_attn.0."),
    (r"^input_blocks\.0\.0\.conv\.", "input_blocks.0.0."),
    (r"^(input_blocks\.\d+\.0)\.conv\.", r"\1.op."),
    (r"^out\.norm\.", "out.0."),
    (r"^out\.conv\.", "out.2."),
    (r"\.conv1\.norm\.", ".in_layers.0."),
    (r"\.conv1\.conv\.", ".in_layers.2."),
    (r"\.embed\.", ".emb_layers.1."),
    (r"\.conv2\.norm\.", ".out_layers.0."),
    (r"\.conv2\.conv\.", ".out_layers.3."),
    (r"\.shortcut\.", ".skip_connection."),
    (r"\.temporal\.(\d)\.norm\.", lambda m: f".temopral_conv.conv{int(m[1]) + 1}.0."),
    # The first has no dropout before its convolution.
    (r"\.temporal\.(\d)\.conv\.", lambda m: f".temopral_conv.conv{int(m[1]) + 1}.{3 if int(m[1]) else 2}."),
    (r"\.image_scale$", ".alpha"),
)
_PROJECTION: tuple[Rule, ...] = (
    (r"^queries$", "latents"),
    (r"^(layers\.\d+)\.norm_image\.", r"\1.0.norm1."),
    (r"^(layers\.\d+)\.norm_queries\.", r"\1.0.norm2."),
    (r"^(layers\.\d+)\.to_", r"\1.0.to_"),
    (r"^(layers\.\d+)\.ff\.", r"\1.1."),
)
_VAE: tuple[Rule, ...] = (
    (r"\.(down|up)_blocks\.(\d+)\.resnets\.(\d+)\.", r".\1.\2.block.\3."),
    (r"\.(down|up)_blocks\.(\d+)\.(down|up)samplers\.0\.", r".\1.\2.\3sample."),
    (r"\.mid_block\.resnets\.(\d)\.", lambda m: f".mid.block_{int(m[1]) + 1}."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.attn_1\.group_norm\.", ".attn_1.norm."),
    (r"\.attn_1\.to_([qkv])\.", r".attn_1.\1."),
    (r"\.attn_1\.to_out\.0\.", ".attn_1.proj_out."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.conv_norm_out\.", ".norm_out."),
)
_CLIP: tuple[Rule, ...] = (
    (r"^(text|vision)_model\.", ""),
    (r"^embeddings\.token_embedding\.", "token_embedding."),
    (r"^embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^embeddings\.class_embedding$", "class_embedding"),
    (r"^embeddings\.patch_embedding\.", "conv1."),
    (r"^pre_layrnorm\.", "ln_pre."),
    (r"^post_layernorm\.", "ln_post."),
    (r"^final_layer_norm\.", "ln_final."),
    (r"^visual_projection\.weight$", "proj"),
    (r"^encoder\.layers\.", "transformer.resblocks."),
    (r"\.layer_norm(\d)\.", r".ln_\1."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
)


def _places(component: str, names: Iterable[str]) -> Callable[[str], Place]:
    """Of a component with these parameters: parameter -> its place in the original."""
    rules: tuple[Rule, ...]
    if component == "vae":
        # The original counts the decoder's levels from the finest.
        top = max((int(m[1]) for name in names if (m := re.match(r"decoder\.up_blocks\.(\d+)", name))), default=0)
        rules = ((r"(?<=\.up_blocks\.)\d+", lambda m: str(top - int(m[0]))), *_VAE)
    else:
        rules = {"unet": _UNET, "image_projection": _PROJECTION}.get(component, _CLIP)

    def place(name: str) -> Place:
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        if attention := re.fullmatch(r"(.+)\.self_attn\.([qkv])_proj\.(weight|bias)", name):
            layer, which, kind = attention.groups()
            return Place(f"{layer}.attn.in_proj_{kind}", third="qkv".index(which))
        return Place(name, transposed=name == "proj")

    return place
