"""diffusers calls its PIAPipeline deprecated: this is the one file that stops working once it is removed."""

import copy
from typing import Any

import torch
from diffusers import DDIMScheduler, MotionAdapter, UNet2DConditionModel, UNetMotionModel

from unleak.families.pia.norms import use_norms
from unleak.families.pia.preset import SCHEDULER

__all__ = ["assemble", "frame_by_frame", "pia_pipeline"]


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
    base: Any,
    adapter: MotionAdapter | None = None,
    *,
    personalised: bool = False,
    norms: str | None = None,
    share: bool = False,
) -> Any:
    """Return a PIAPipeline made of a Stable Diffusion 1.5 pipeline's networks and a motion adapter of PIA's.

    base: anything with vae, text_encoder, tokenizer and unet; without a UNet (None) the pipeline has none either, and
        needs no adapter.
    adapter: one with a condition input.
    personalised: the base is a fine-tuned one, so its input convolution is kept for the noisy latents, and only the
        condition's part is the adapter's; otherwise all of it is.
    norms: see `use_norms`; by default the network computes as PIA's own code does.
    share: the new network may share its weights with `base` and `adapter`, which saves their memory where neither is
        used again; otherwise it has copies, and neither is changed.

    The noise schedule is PIA's. Raises ValueError for an adapter that has no condition input, or does not fit the base.
    """
    parts = {"vae": base.vae, "text_encoder": base.text_encoder, "tokenizer": base.tokenizer}
    parts["scheduler"] = DDIMScheduler(**SCHEDULER)
    if base.unet is None:
        return pia_pipeline()(**parts, unet=None)
    if adapter is None or not adapter.config.conv_in_channels:
        raise ValueError("PIA needs its own motion adapter, with a condition input: AnimateDiff's have none.")
    if not share:
        adapter = copy.deepcopy(adapter)
    try:
        unet = _video_network(base.unet, adapter, personalised=personalised)
    except (ValueError, RuntimeError, AttributeError) as error:  # sizes that differ, by layer or in number
        raise ValueError(f"the motion adapter does not fit the base: {' '.join(str(error).split())[:300]}") from error
    if not share:
        unet = copy.deepcopy(unet)
    use_norms(unet, norms)
    return frame_by_frame(pia_pipeline()(**parts, unet=unet, motion_adapter=adapter))


def frame_by_frame(pipe: Any) -> Any:
    """Make a PIAPipeline's VAE decode one frame at a time; diffusers' decodes all at once, in gigabytes."""
    if pipe.vae is not None:
        pipe.vae.enable_slicing()
    return pipe


def _video_network(image: UNet2DConditionModel, adapter: MotionAdapter, *, personalised: bool) -> UNetMotionModel:
    """Put the weights of an image network and of an adapter together, in the image network's precision, uncopied."""
    with torch.device("meta"):  # else it would be filled with random numbers first
        unet = UNetMotionModel.from_unet2d(image, adapter, load_weights=False)
    own = {name: tensor.to(image.dtype) for name, tensor in adapter.state_dict().items()}
    weights = image.state_dict() | own
    if personalised:
        noisy = image.conv_in.weight
        weights["conv_in.weight"] = torch.cat([noisy, own["conv_in.weight"][:, noisy.shape[1] :]], dim=1)
        weights["conv_in.bias"] = image.conv_in.bias
    unet.load_state_dict(weights, assign=True)
    return unet.eval().requires_grad_(image.conv_in.weight.requires_grad)
