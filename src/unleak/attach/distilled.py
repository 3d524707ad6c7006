"""Models distilled to a few steps: how they are recognised, and the levels that they know."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import nn

__all__ = ["GRIDS", "LTX2", "distilled", "grid_named"]

NAMES = re.compile(
    r"lightning|lightx2v|causvid|fusion-?x|fast-?wan|(?<!cfg[-_])(?<!guidance[-_])distil|lcm(?![a-z])|tcd(?![a-z])|turbo"
    r"|accvid|self[-_]?forcing|\brcm\b|dmd|hyper[-_]?sd|pcm(?![a-z])"
    r"|(?<!\d)[1-8][-_ ]?steps?(?![\da-z])",
    re.IGNORECASE,
)
"""Names of checkpoints and LoRAs that are distilled to few steps, not of those whose guidance alone is distilled."""

SCHEDULERS = {"LCMScheduler", "TCDScheduler"}
"""Schedulers that only distilled models are sampled with. (Not AnyFlow's flow map, which is trained for all levels.)"""

LTX2 = "LTX-2 distilled"
GRIDS: dict[str, tuple[float, ...]] = {
    "Wan-Lightning": (1.0, 0.9375, 0.8333, 0.625),
    LTX2: (1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875),
}
"""Levels that models were distilled for, as flow sigmas, without the final 0."""


def distilled(pipe: Any, arguments: Mapping[str, Any]) -> str | None:
    """Return why the model of this call is known to be distilled to few steps; None if it is not known to be."""
    for base in type(pipe.scheduler).__mro__:
        if base.__name__ in SCHEDULERS:
            return f"its scheduler is {base.__name__}"
    if (given := arguments.get("sigmas")) is not None and (name := grid_named(given)):
        return f"its sigmas are those of {name}"
    for name in _names(pipe):
        if NAMES.search(name):
            return f"its weights are named {name}"
    return None


def grid_named(sigmas: Iterable[float]) -> str | None:
    """Return the name of the distilled model whose levels these are, to the third digit; None if of none."""
    levels = np.asarray([float(sigma) for sigma in sigmas])
    levels = levels[levels > 0]
    for name, known in GRIDS.items():
        if len(levels) == len(known) and np.allclose(levels, known, atol=1e-3):
            return name
    return None


def _names(pipe: Any) -> list[str]:
    """Return the names of the pipeline, of its denoisers and of the LoRAs in them that are switched on."""
    found = [_basename(getattr(pipe, "name_or_path", None))]
    for part in ("transformer", "transformer_2", "unet"):
        network = getattr(pipe, part, None)
        if network is None:
            continue
        found.append(_basename(network.config.get("_name_or_path")))
        found += _active(network)
    return [name for name in found if name]


def _basename(path: Any) -> str:
    """Return the last part of a path or a Hub id; empty for anything else."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] if isinstance(path, str) else ""


def _active(network: Any) -> list[str]:
    """Return the names of the LoRAs that act in a network, merged into its weights or not."""
    for module in network.modules():
        if isinstance(getattr(module, "lora_A", None), nn.ModuleDict):
            return [*module.merged_adapters, *([] if module.disable_adapters else module.active_adapters)]
    return []
