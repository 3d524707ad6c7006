"""Models whose image is the first latent frame of the noisy video itself, known to the network by the time it is told
of that frame's tokens: LTX-Video, Wan 2.2 5B."""

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

__all__ = ["begun_with", "times_of_tokens"]


def begun_with(image: Float[Tensor, "b c 1 h w"], x_t: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
    """x_t with `image` in the place of its first frame."""
    return torch.cat([image.to(x_t), x_t[:, :, 1:]], dim=2)


def times_of_tokens(
    timestep: Float[Tensor, "b"], first: Float[Tensor, "b"], *, frames: int, each: int
) -> Float[Tensor, "b tokens"]:
    """Return the time of every token, `each` of them a frame: `first` in the first frame, `timestep` elsewhere."""
    times = repeat(timestep, "b -> b f n", f=frames, n=each).clone()
    times[:, 0] = first[:, None].to(times)
    return times.flatten(1)
