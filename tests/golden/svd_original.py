"""Stability AI's own networks against diffusers' port of them.

The port has another epsilon in some group normalisations, so its UNet differs a little more than rounding explains.
"""

import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel

from tests.golden.case import Case
from tests.golden.lvdm_networks import NETWORK


@torch.no_grad()
def run_original(case: Case) -> None:
    of_unet = Case(case.path.with_name(f"{case.config['unet']}.json"))
    unet = UNetSpatioTemporalConditionModel(**of_unet.config["config"]).eval()
    unet.load_state_dict(of_unet.weights())
    names = ("sample", "timestep", "encoder_hidden_states", "added_time_ids")
    case.compare("sample", unet(*(of_unet[f"in.{name}"] for name in names)).sample, share=NETWORK)

    vae = AutoencoderKLTemporalDecoder(**case.config["vae_config"]).eval()
    vae.load_state_dict(case.weights())
    case.compare("moments", vae.encode(case["in.image"]).latent_dist.parameters, share=NETWORK)
    frames = case["in.latents"]
    case.compare("video", vae.decode(frames, num_frames=len(frames)).sample, share=NETWORK)


CASES = {"svd_original": run_original}
