"""The view of DynamiCrafter, and the TimeNoise that the paper trains it with."""

from unleak.core.timenoise import TimeNoise
from unleak.families.lvdm.view import LVDMView

__all__ = ["DynamiCrafterView"]


class DynamiCrafterView(LVDMView):
    """The view of a `DynamiCrafterPipeline`.

    The published recipe can noise the image tokens, too (`clip_type` 1): `condition.noised(..., tokens=...)`.
    """

    latent_noise = TimeNoise(100, 5)
    noised = ("latents", "tokens")
    trains_projection = True
