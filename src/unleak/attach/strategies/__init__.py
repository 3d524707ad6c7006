"""Training-free fixes for still videos, attachable alone or beside a start: `unleak.apply(pipe, strategies=[...])`.

One file holds one strategy; `registry` lists them all with the text form of each. Classes are loaded on first use, so
that the registry can be read without torch.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Compress": "compress",
    "ConditionNoise": "condition_noise",
    "ExpertGuidance": "expert_guidance",
    "GuidanceInterval": "guidance_interval",
    "LowPass": "low_pass",
    "MotionAmplitude": "motion_amplitude",
    "ReferenceBias": "reference_bias",
    "fixes": "registry",
    "parse_fix": "registry",
    "parse_fixes": "registry",
    "register_fix": "registry",
}

__all__ = [*_HOME]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
