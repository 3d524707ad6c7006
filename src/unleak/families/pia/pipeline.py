"""diffusers calls its PIAPipeline deprecated: this is the one file that stops working once it is removed."""

import copy
from typing import Any

import torch
from diffusers import DDIMScheduler, MotionAdapter

from unleak.families.pia.norms import use_norms
from unleak.families.pia.preset import SCHEDULER

__all__ = ["assemble", "pia_pipeline"]


def pia_pipeline() -> Any:
    """diffusers' class. ValueError where the diffusers that is installed has none any more."""
    import diffusers

    found = getattr(diffusers, "PIAPipeline", None)
    if found is None:
        raise ValueError(
            f"PIA needs the PIAPipeline of diffusers, which diffusers {diffusers.__version__} does not have: install"
            " the last version that it was seen in, diffusers==0.42.1"
        )
    return found


def assemble(
    base: Any, adapter: MotionAdapter | None = None, *, personalised: bool = False, norms: str | None = None
) -> Any:
    """Return a PIAPipeline made of a Stable Diffusion 1.5 pipeline's networks and a motion adapter of PIA's.

    base: anything with vae, text_encoder, tokenizer and unet; without a UNet (None) the pipeline has none either, and
        needs no adapter.
    adapter: one with a condition input.
    personalised: the base is a fine-tuned one, so its input convolution is kept for the noisy latents, and only the
        condition's part is the adapter's; otherwise all of it is.
    norms: see `use_norms`; by default the network computes as PIA's own code does.

    The noise schedule is PIA's. Neither `base` nor `adapter` is changed. Raises ValueError for an adapter that has no
    condition input, or does not fit the base.
    """
    parts = {"vae": base.vae, "text_encoder": base.text_encoder, "tokenizer": base.tokenizer}
    parts["scheduler"] = DDIMScheduler(**SCHEDULER)
    if base.unet is None:
        return pia_pipeline()(**parts, unet=None)
    if adapter is None or not adapter.config.conv_in_channels:
        raise ValueError("PIA needs its own motion adapter, with a condition input: AnimateDiff's have none.")
    adapter = copy.deepcopy(adapter)
    convolution = copy.deepcopy(adapter.conv_in)  # diffusers overwrites part of it with the base's
    try:
        pipe = pia_pipeline()(**parts, unet=base.unet, motion_adapter=adapter)
    except (RuntimeError, AttributeError) as error:  # sizes that differ, by layer or in the number of blocks
        raise ValueError(f"the motion adapter does not fit the base: {' '.join(str(error).split())[:300]}") from error
    adapter.conv_in = convolution
    if not personalised:
        with torch.no_grad():
            for ours, theirs in zip(pipe.unet.conv_in.parameters(), convolution.parameters(), strict=True):
                ours.copy_(theirs)
    use_norms(pipe.unet, norms)
    return pipe
