"""The names by which ComfyUI, which follows the network's authors, knows the layers of Stable Video Diffusion."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from unleak.families.keys import Rule, renamed

__all__ = ["comfyui"]

_CHANNELS = (320, 640, 1280, 1280)  # a smaller network of that class is none of ComfyUI's


def _block(name: str, first: int, part: str, *, layer: int | None = None) -> Callable[[re.Match[str]], str]:
    """Turn level and layer as diffusers counts them into a part of a block as the original does, three a level."""
    return lambda found: f"{name}.{first + 3 * int(found[1]) + (int(found[2]) if layer is None else layer)}.{part}."


_ORIGINAL: tuple[Rule, ...] = (
    (r"^time_embedding\.linear_1\.", "time_embed.0."),
    (r"^time_embedding\.linear_2\.", "time_embed.2."),
    (r"^add_embedding\.linear_1\.", "label_emb.0.0."),
    (r"^add_embedding\.linear_2\.", "label_emb.0.2."),
    (r"^conv_in\.", "input_blocks.0.0."),
    (r"^conv_out\.", "out.2."),
    (r"^down_blocks\.(\d)\.resnets\.(\d)\.", _block("input_blocks", 1, "0")),
    (r"^down_blocks\.(\d)\.attentions\.(\d)\.", _block("input_blocks", 1, "1")),
    (r"^down_blocks\.(\d)\.downsamplers\.0\.conv\.", _block("input_blocks", 1, "0.op", layer=2)),
    (r"^mid_block\.resnets\.0\.", "middle_block.0."),
    (r"^mid_block\.attentions\.0\.", "middle_block.1."),
    (r"^mid_block\.resnets\.1\.", "middle_block.2."),
    (r"^up_blocks\.(\d)\.resnets\.(\d)\.", _block("output_blocks", 0, "0")),
    (r"^up_blocks\.(\d)\.attentions\.(\d)\.", _block("output_blocks", 0, "1")),
    # Behind an attention, which the first level up has none of.
    (r"^up_blocks\.0\.upsamplers\.0\.conv\.", "output_blocks.2.1.conv."),
    (r"^up_blocks\.(\d)\.upsamplers\.0\.conv\.", _block("output_blocks", 0, "2.conv", layer=2)),
    (r"\.spatial_res_block\.", "."),
    (r"\.temporal_res_block\.", ".time_stack."),
    (r"\.temporal_transformer_blocks\.", ".time_stack."),
    (r"\.time_pos_embed\.linear_1\.", ".time_pos_embed.0."),
    (r"\.time_pos_embed\.linear_2\.", ".time_pos_embed.2."),
    (r"\.conv1\.", ".in_layers.2."),
    (r"\.conv2\.", ".out_layers.3."),
    (r"\.time_emb_proj\.", ".emb_layers.1."),
    (r"\.conv_shortcut\.", ".skip_connection."),
)


def comfyui(network: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return adapters of the network by ComfyUI's names; none for a network that ComfyUI does not have."""
    if (
        type(network).__name__ != "UNetSpatioTemporalConditionModel"
        or tuple(network.config.block_out_channels) != _CHANNELS
    ):
        return {}
    return renamed(tensors, _ORIGINAL)
