"""Check the configuration of a model's parts before anything is built from it: kinds, ranges, sizes.

A network's constructor trusts its configuration: `layers_per_block: 100000` builds until memory ends, a schedule of
three million steps computes for minutes, and a `scaling_factor` of 0 makes latents infinite without a word. The bounds
here are far above what any published model has.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from unleak.data.reading import parse_values

__all__ = ["check_configuration"]


def _within(kind: type, low: float, high: float, value: Any) -> Any:
    """Raise ValueError unless `value` is None, a number of this kind from `low` to `high`, or a list of such."""
    if isinstance(value, list | tuple):
        for one in value:
            _within(kind, low, high, one)
    elif value is not None:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high or (kind is int and value != int(value)):
            wanted = "a whole number" if kind is int else "a number"
            raise ValueError(f"should be {wanted} from {low:g} to {high:g}")
    return value


def _number(low: float, high: float, kind: type = float) -> AfterValidator:
    return AfterValidator(partial(_within, kind, low, high))


_Layers = Annotated[Any, _number(0, 512, int)]
_Width = Annotated[Any, _number(1, 2**20, int)]
_Side = Annotated[Any, _number(1, 2**16, int)]
_Steps = Annotated[Any, _number(1, 100_000, int)]
_Scale = Annotated[Any, _number(1e-8, 1e8)]
_Level = Annotated[Any, _number(0, 1e8)]
_Share = Annotated[Any, _number(0, 1)]


_MAY_BE_INFINITE = {"lambda_min_clipped"}  # of DPMSolver: -inf clips nothing


class _Configuration(BaseModel):
    """What sizes a network or a schedule, in the words of diffusers and transformers; None stands for their default."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    layers_per_block: _Layers = None
    num_layers: _Layers = None
    num_single_layers: _Layers = None
    num_refiner_layers: _Layers = None
    num_hidden_layers: _Layers = None
    num_decoder_layers: _Layers = None
    transformer_layers_per_block: _Layers = None
    motion_transformer_layers_per_block: _Layers = None
    temporal_transformer_layers_per_block: _Layers = None
    num_res_blocks: _Layers = None

    block_out_channels: _Width = None
    in_channels: _Width = None
    out_channels: _Width = None
    latent_channels: _Width = None
    cross_attention_dim: _Width = None
    attention_head_dim: _Width = None
    num_attention_heads: _Width = None
    norm_num_groups: _Width = None
    hidden_size: _Width = None
    intermediate_size: _Width = None
    ffn_dim: _Width = None
    text_dim: _Width = None
    num_frames: _Side = None

    num_train_timesteps: _Steps = None
    beta_start: _Share = None
    beta_end: _Share = None
    sigma_min: _Level = None
    sigma_max: _Level = None
    sigma_data: _Scale = None
    shift: _Level = None
    flow_shift: _Level = None
    base_shift: _Level = None
    max_shift: _Level = None
    scaling_factor: _Scale = None
    latents_std: _Scale = None


def check_configuration(values: Mapping[str, Any], where: str) -> None:
    """Raise ValueError, in a line that begins with `where`, for a value of the wrong kind, not finite or too large."""
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value) and name not in _MAY_BE_INFINITE:
            raise ValueError(f"{where}: {name} should be a finite number, given {value}")
    parse_values(dict(values), _Configuration, where)
