"""VideoCrafter1 as a denoiser, and the TimeNoise that the paper trains it with."""

from unleak.core.timenoise import TimeNoise
from unleak.families.lvdm.denoiser import LVDMDenoiser

__all__ = ["VideoCrafter1Denoiser"]


class VideoCrafter1Denoiser(LVDMDenoiser):
    """The denoiser view of a `VideoCrafter1Pipeline`, whose image enters by tokens only."""

    token_noise = TimeNoise(100, 5, mu_max=4)
