from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNetSpatioTemporalConditionModel
from einops import einsum, rearrange
from torch import Tensor

from tests.golden.case import CLOSED_FORM, Case
from unleak.families.svd.view import SVDView
from unleak.families.view import Levels
from unleak.train.config import TimeNoiseConfig
from unleak.train.draws import Draws, build_condition, reference_timenoise
from unleak.train.loss import edm_weight, squared_error


def run_loss(case: Case) -> None:
    for run, info in case.config["runs"].items():
        given: dict[str, Tensor] = {}

        def unet(sample: Tensor, timestep: Tensor, *, given: dict = given, **told: Any) -> tuple[Tensor]:
            assert told.pop("return_dict") is False
            given.update(sample=sample, timestep=timestep, **told)
            return (stub_network(case, sample, timestep, **told),)

        draws, image = recorded_draws(case, run, info)
        pixels = image if draws.pixel_noise is None else image + draws.pixel_noise
        raw = einsum(case["stub.vae_w"], F.avg_pool2d(pixels, 8), "o c, b c h w -> b o h w")
        condition = build_condition(
            raw,
            case["in.encoder_hidden_states"],
            fps=torch.full((len(raw),), float(case.config["fps"])),
            motion_bucket_id=torch.full((len(raw),), float(case.config["motion_bucket_id"])),
            draws=draws,
        )
        view = SVDView(SimpleNamespace(unet=unet))
        levels = Levels(torch.ones_like(draws.sigma), draws.sigma)
        x_0 = rearrange(case["in.latents"], "b f c h w -> b c f h w")
        weight = edm_weight(draws.sigma, case.config["settings"][run.split(".")[0]]["sigma_data"])
        loss = weight * squared_error(view, x_0, draws.eps, levels, condition)
        case.compare(f"{run}.loss", loss.mean())
        for name, value in given.items():
            case.compare(f"{run}.unet_{name}", value, share=CLOSED_FORM)


def recorded_draws(case: Case, run: str, info: dict[str, Any]) -> tuple[Draws, Tensor]:
    """Our draws from the recorded ones, and the first frames."""
    settings = case.config["settings"][run.split(".")[0]]
    eps, log_sigma, *rest = (case[f"in.{run}.draw{i}"] for i in range(len(info["draws"])))
    image = case["in.first_frame"][:, 0]
    sigma = (settings["P_mean"] + settings["P_std"] * log_sigma.flatten()).exp()
    # The reference drops the whole batch or none of it.
    uniform, ratio = info["uniform_drawn"], info["cfg_random_null_ratio"]
    dropped = torch.full(sigma.shape, uniform is not None and uniform < ratio)
    pixel_noise = latent_noise = None
    if "beta_m" in settings:
        y, scalar = rest
        config = TimeNoiseConfig(noise="timenoise", beta_m=settings["beta_m"], a=settings["a"], reference=True)
        latent_noise, strength = reference_timenoise(config, sigma, y, scalar.flatten())
    else:
        noise, log_strength = rest
        strength = (settings["P_mean"] + settings["P_std"] * log_strength.flatten()).exp()
        pixel_noise = strength[:, None, None, None] * noise[:, 0]
    eps = rearrange(eps, "b f c h w -> b c f h w")
    return Draws(sigma, eps, dropped, strength, pixel_noise, latent_noise), image


def stub_network(
    case: Case, sample: Tensor, timestep: Tensor, *, encoder_hidden_states: Tensor, added_time_ids: Tensor
) -> Tensor:
    """The network stand-in of the recording, as its JSON states it."""
    ids = torch.tanh(0.05 * added_time_ids @ case["stub.unet_wt"])
    tokens = (encoder_hidden_states @ case["stub.unet_we"]).mean(1)
    gate = 1 + 0.3 * timestep.cos() + 0.3 * ids + 0.3 * tokens
    mixed = einsum(case["stub.unet_w"], sample.tanh(), "o c, b f c h w -> b f o h w")
    return mixed * gate[:, None, None, None, None]


@torch.no_grad()
def run_unet(case: Case) -> None:
    config = {key: tuple(v) if isinstance(v, list) else v for key, v in case.config["config"].items()}
    unet = UNetSpatioTemporalConditionModel(**config).eval()
    unet.load_state_dict(case.weights())
    tokens, ids = case["in.encoder_hidden_states"], case["in.added_time_ids"]
    for output, timestep in (("sample", case["in.timestep"]), ("sample_t0.7", torch.tensor(0.7))):
        ours = unet(case["in.sample"], timestep, encoder_hidden_states=tokens, added_time_ids=ids).sample
        case.compare(f"{output}_separate", ours)
        case.defect(output)


CASES = {"svd_loss": run_loss, "svd_unet": run_unet}
