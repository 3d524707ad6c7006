"""Make image-to-video diffusion models move: diagnose, fix and measure conditional image leakage."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public name -> the module that defines it, imported on first use: `import unleak` loads neither torch nor diffusers.
_HOME = {
    "Start": "unleak.core.start",
    "LatentMoments": "unleak.core.moments",
    "AnalyticInit": "unleak.core.initial",
    "TimeNoise": "unleak.core.timenoise",
    "apply": "unleak.attach.apply",
    "applied": "unleak.attach.apply",
    "remove": "unleak.attach.apply",
    "summary": "unleak.attach.apply",
    "Compress": "unleak.attach.strategies",
    "ConditionNoise": "unleak.attach.strategies",
    "GuidanceInterval": "unleak.attach.strategies",
    "LowPass": "unleak.attach.strategies",
    "ExpertGuidance": "unleak.attach.strategies",
    "MotionAmplitude": "unleak.attach.strategies",
    "ReferenceBias": "unleak.attach.strategies",
    "fixes": "unleak.attach.strategies.registry",
    "parse_fix": "unleak.attach.strategies.registry",
    "register_fix": "unleak.attach.strategies.registry",
    "register_seam": "unleak.attach.seams",
    "load": "unleak.zoo.hub",
    "metric": "unleak.measure.registry",
    "evaluate": "unleak.study.evaluate.run",
    "compare": "unleak.study.compare.run",
    "diagnose": "unleak.study.diagnose.run",
    "sweep": "unleak.study.sweep",
    "fix": "unleak.study.attempt",
    "tune": "unleak.study.tune.find",
}

__all__ = ["__version__", *_HOME]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'unleak' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
