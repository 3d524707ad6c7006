"""Which denoiser view a pipeline class has."""

from importlib import import_module
from typing import Any

__all__ = ["VIEWS", "denoiser_class"]

VIEWS = {
    "StableVideoDiffusionPipeline": ("svd", "SVDDenoiser"),
    "DynamiCrafterPipeline": ("dynamicrafter", "DynamiCrafterDenoiser"),
    "VideoCrafter1Pipeline": ("videocrafter1", "VideoCrafter1Denoiser"),
    "WanImageToVideoPipeline": ("wan", "WanDenoiser"),
    "LTXImageToVideoPipeline": ("ltx", "LTXDenoiser"),
    "LTXConditionPipeline": ("ltx", "LTXDenoiser"),
}
"""Pipeline class -> its family and the view that can be trained."""


def denoiser_class(pipeline: str) -> Any:
    """The view of a pipeline class; KeyError for a class that has none."""
    family, name = VIEWS[pipeline]
    return getattr(import_module(f"unleak.families.{family}.denoiser"), name)
