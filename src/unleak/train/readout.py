"""An auxiliary task: the middle of the network has to know how the clip moves."""

from typing import Any

import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn


class MotionReadout(nn.Module):
    """A UNet with a linear read-out of its middle block: the clip's pan, [dx, dy] in pixels per frame.

    A small network trained from scratch learns to denoise every patch by what it sees there, and stays there for long:
    patches then disagree on where the camera goes, and samples dissolve. To read the motion off the middle block it has
    to add up the evidence of the whole clip; once that is there, the rest of the network uses it. Needs clips of known
    motion; the read-out is thrown away after training.
    """

    def __init__(self, unet: Any, num_frames: int):
        super().__init__()
        self.unet, self.num_frames = unet, num_frames
        self.linear = nn.Linear(unet.config.block_out_channels[-1] * num_frames, 2)
        for parameter in self.linear.parameters():
            nn.init.zeros_(parameter)
        self.velocity: Float[Tensor, "b 2"] | None = None
        unet.mid_block.register_forward_hook(lambda _module, _inputs, middle: self._read(middle))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the U-Net; `velocity` then holds what was read."""
        return self.unet(*args, **kwargs)

    def _read(self, middle: Float[Tensor, "bf c h w"]) -> None:
        features = reduce(middle.float(), "(b f) c h w -> b f c", "mean", f=self.num_frames)
        features = rearrange(F.layer_norm(features, features.shape[-1:]), "b f c -> b (f c)")
        # Of length 1, so that one learning rate suits networks of any width.
        self.velocity = self.linear(features / features.shape[1] ** 0.5)
