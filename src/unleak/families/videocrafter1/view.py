"""The view of VideoCrafter1, and the TimeNoise that the paper trains it with."""

from unleak.core.timenoise import TimeNoise
from unleak.families.lvdm.view import LVDMView

__all__ = ["VideoCrafter1View"]


class VideoCrafter1View(LVDMView):
    """The view of a `VideoCrafter1Pipeline`, whose image enters by tokens only."""

    token_noise = TimeNoise(100, 5, mu_max=4)
