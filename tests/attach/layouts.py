"""Where the tiny pipelines have their frames and channels, which keep a clean first frame, and where they start."""

from typing import Any

from einops import rearrange
from torch import Tensor

from tests.tiny.model import Tiny
from unleak.attach.latent_space import latent_channels
from unleak.attach.schedule import process_of
from unleak.core.process import Level
from unleak.core.start import Start

__all__ = ["CHANNELS_LAST", "CLEAN", "FRAMES_FIRST", "STARTS", "start_of", "video"]

FRAMES_FIRST = {"svd", "cogvideox-ddim", "cogvideox-dpm", "cogvideox1.5-ddim", "cogvideox1.5-dpm", "consisid"}
FRAMES_FIRST |= {"cogvideox-control"}
CHANNELS_LAST = {"kandinsky5", "kandinsky6"}
CLEAN = {"ltx", "ltx-condition", "ltx2", "ltx2-condition", "ltx2-in-context", "sana-video", "sana-wm", "kandinsky5"}
CLEAN |= {"cosmos3", "sana-video-dpm"}
"""Frame 0 of the latents is the image."""
STARTS = {"VP": "820", "VE": "sigma=20", "RF": "sigma=0.8"}


def start_of(pipe: Any) -> tuple[str, Level]:
    process = process_of(pipe.scheduler)
    text = STARTS[process.kind]
    return text, Start.parse(text).resolve(process)


def video(tiny: Tiny, pipe: Any, tensor: Tensor, places: dict[str, Any], like: Tensor | None = None) -> Tensor:
    """b c f h w of a draw, or of what prepare_latents returned."""
    if tensor.ndim == 3:
        sizes = tuple(places.values()) if len(places) == 3 else like.shape[2:]
        count = sizes[0] * sizes[1] * sizes[2]
        return pipe._unpack_latents(tensor[:, :count], *sizes, 1, 1)
    if tiny.name in FRAMES_FIRST:
        return tensor.transpose(1, 2)
    if tiny.name in CHANNELS_LAST:
        return rearrange(tensor, "b f h w c -> b c f h w")[:, : latent_channels(pipe.vae)]
    return tensor
