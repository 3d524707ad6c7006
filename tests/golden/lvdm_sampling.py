import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from diffusers import AutoencoderKL
from torch import Tensor

import unleak
from tests.golden.analytic_init import moments_of
from tests.golden.case import CLOSED_FORM, Case
from tests.golden.lvdm_networks import filled
from unleak.attach.schedule import process_of
from unleak.core.initial import AnalyticInit
from unleak.core.start import Start
from unleak.families.dynamicrafter.pipeline import DynamiCrafterPipeline
from unleak.families.lvdm import pipeline as sampling
from unleak.families.lvdm import scheduler as stepping
from unleak.families.lvdm.original import resampler_config, scheduler_config, unet_config, vae_config
from unleak.families.lvdm.resampler import Resampler
from unleak.families.lvdm.schedule import betas_of, buffers
from unleak.families.lvdm.scheduler import LVDMScheduler
from unleak.families.videocrafter1.pipeline import VideoCrafter1Pipeline

PROCESS = {"linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000}
"""Of all published models; cases that do not say otherwise are of these."""
TEXT = 77


def dynamicrafter_process(base_scale: float) -> dict[str, Any]:
    rescaled = {"use_dynamic_rescale": True, "base_scale": base_scale, "turning_step": 400}
    return scheduler_config(PROCESS | rescaled | {"rescale_betas_zero_snr": True, "parameterization": "v"})


def videocrafter_process() -> dict[str, Any]:
    return scheduler_config(PROCESS | {"use_scale": True, "scale_b": 0.7, "mid_step": 400})


def run_schedule(case: Case) -> None:
    settings = scheduler_config(case.config["config"])
    process = {name: settings[name] for name in settings if name not in ("timestep_spacing", "set_scale_to_one")}
    ours = buffers(**process)
    eps = settings["prediction_type"] == "epsilon"
    if eps:  # the weights of the bound, which no loss uses
        beta, alphas_cumprod, variance = (ours[n].double() for n in ("betas", "alphas_cumprod", "posterior_variance"))
        weights = beta**2 / (2 * variance * (1 - beta) * (1 - alphas_cumprod))
        ours["lvlb_weights"] = torch.cat([weights[1:2], weights[1:]])
    else:
        ours["lvlb_weights"] = torch.ones(settings["num_train_timesteps"])
    numbers = (settings["beta_start"], settings["beta_end"], settings["num_train_timesteps"])
    ours["betas_before_zero_snr_f64"] = torch.from_numpy(betas_of(*numbers))
    ours["betas_zero_snr_f64"] = torch.from_numpy(betas_of(*numbers, zero_terminal_snr=True))
    scheduler = LVDMScheduler(**settings)
    assert torch.equal(scheduler.alphas_cumprod, ours["alphas_cumprod"])
    if "in.q_sample.x" in case:
        x, noise, t = (case[f"in.q_sample.{name}"] for name in ("x", "noise", "t"))
        ours["q_sample"] = scheduler.add_noise(x, noise, t)
    for output in case.outputs:
        case.compare(output, ours[output], share=CLOSED_FORM)

    for name, recorded in case.config["ddim_timesteps"].items():
        spacing, steps, start = re.fullmatch(r"(\w+)/steps=(\d+)/M=(\d+)", name).groups()
        published = LVDMScheduler(**settings | {"timestep_spacing": spacing}, reference=True)
        grid = published.grid(int(steps), int(start))
        assert grid[::-1] == [t for t in recorded if t >= 0], name
        assert len(LVDMScheduler(**settings | {"timestep_spacing": spacing}).grid(int(steps), int(start))) == int(steps)


def networks(case: Case, weights: str, **components: torch.nn.Module) -> Any:
    """The UNet of a case, and components whose weights lie elsewhere: `components` are filled from the case's own."""
    unet = sampling.LVDMUNet(**unet_config(case.config["unet_config"]))
    filled(case.weights(weights), unet=unet)
    if components:
        filled(case.weights(), **components)
    return unet


def pipeline_of(cls: type, **components: Any) -> Any:
    """A pipeline of the components given; its encoders are replaced by recorded tensors, so there are none."""
    names = ("vae", "text_encoder", "tokenizer", "image_encoder", "feature_extractor", "image_projection")
    pipe = cls(**dict.fromkeys(names) | components)
    pipe.set_progress_bar_config(disable=True)
    return pipe


class Replay:
    """Recorded draws in place of random ones."""

    def __init__(self, draws: Iterable[Tensor]) -> None:
        self.draws = list(draws)

    def __call__(self, shape: tuple[int, ...], **_: Any) -> Tensor:
        draw = self.draws.pop(0)
        assert draw.shape == tuple(shape), (draw.shape, shape)
        return draw


@contextmanager
def replayed(draws: Iterable[Tensor], steps: Iterable[Tensor]) -> Iterator[dict[str, Tensor]]:
    """Give the pipeline `draws` and the scheduler `steps`; yield what was seen of the first step and of all steps."""
    seen: dict[str, Any] = {}
    plain, before, within = LVDMScheduler.step, Replay(draws), Replay(steps)

    def step(self: Any, prediction: Tensor, t: Tensor, x: Tensor, eta: float = 0.0, **options: Any) -> Any:
        result = plain(self, prediction, t, x, eta, **options)
        if "init" not in seen:
            seen.update(init=x, pred_x0=result[1] * self.step_from(int(t)).scale_next)
        seen.setdefault("steps", []).append((int(t), self.step_from(int(t), eta)))
        seen.setdefault("clean", []).append(result[1])
        seen["scheduler"] = self
        return result

    with (
        patch.object(sampling, "randn_tensor", before),
        patch.object(stepping, "randn_tensor", within),
        patch.object(LVDMScheduler, "step", step),
    ):
        yield seen
    assert not before.draws
    assert not within.draws


def compare_grid(case: Case, run: str, seen: dict[str, Any]) -> None:
    """The published sampler's tables, which ascend in time, against the steps that were made."""
    timesteps, steps = zip(*reversed(seen["steps"]), strict=True)
    ours = {
        "ddim_timesteps": timesteps,
        "ddim_alphas": [step.alpha**2 for step in steps],
        "ddim_alphas_prev": [step.alpha_next**2 for step in steps],
        "ddim_sqrt_one_minus_alphas": [step.sigma for step in steps],
        "ddim_sigmas": [step.spread for step in steps],
        "ddim_scale_arr": [step.scale for step in steps],
        "ddim_scale_arr_prev": [step.scale_next for step in steps],
    }
    for name, values in ours.items():
        if f"out.{run}.{name}" in case:
            case.compare(f"{run}.{name}", torch.tensor(values, dtype=torch.float64), share=CLOSED_FORM)


PIXELS = torch.zeros(1, 3, 8, 8)


def run_dynamicrafter_ddim(case: Case) -> None:
    config = case.config
    unet = networks(case, config["weights"])
    pipe = pipeline_of(
        DynamiCrafterPipeline, unet=unet, scheduler=LVDMScheduler(**dynamicrafter_process(config["base_scale"]))
    )
    conditional, unconditional = case["in.c_crossattn"], case["in.uc_crossattn"]
    image_only = case["in.uc_text_only_dropped_crossattn"]
    branches = {1: [conditional], 2: [unconditional, conditional], 3: [unconditional, image_only, conditional]}
    pipe._tokens = lambda *_: branches[pipe._branches.count]
    pipe.condition_latents = lambda *_, **__: case["in.c_concat"]
    *_, height, width = case["in.x_T"].shape
    side = pipe.vae_scale_factor

    for run in dict.fromkeys(output.rpartition(".")[0] for output in case.outputs):
        info = config["runs"].get(run, {})
        start, eta = re.match(r"M(\d+)_eta([\d.]+)", run).groups() if run.startswith("M") else (1000, info["eta"])
        noises = case[f"in.{run}.noise"] if float(eta) else ()
        with unleak.applied(pipe, start=str(start)), replayed((), noises) as seen:
            latents = pipe(
                PIXELS,
                prompt_embeds=conditional[:, :TEXT],
                latents=case["in.x_T"],
                height=height * side,
                width=width * side,
                num_frames=config["frames"],
                num_inference_steps=info.get("steps", len(info.get("timesteps", range(10)))),
                guidance_scale=1.0 if "noguidance" in run else config["guidance"],
                guidance_rescale=0.0 if "norescale" in run else config["guidance_rescale"],
                image_guidance_scale=info.get("cfg_img"),
                fps=case["in.fs"].item(),
                eta=float(eta),
                output_type="latent",
            ).frames
        case.compare(f"{run}.sample", latents)
        if f"out.{run}.pred_x0_first" in case:
            case.compare(f"{run}.pred_x0_first", seen["pred_x0"])
        compare_grid(case, run, seen)


def run_dynamicrafter_pipeline(case: Case) -> None:
    config = case.config
    vae = AutoencoderKL(**vae_config(config["vae_config"], scaling_factor=config["scale_factor"]))
    projection = Resampler(**resampler_config(config["image_proj_config"]))
    unet = networks(case, config["unet_weights"], vae=vae, image_projection=projection)
    scheduler = LVDMScheduler(**dynamicrafter_process(config["base_scale"]))
    pipe = pipeline_of(DynamiCrafterPipeline, vae=vae, image_projection=projection, unet=unet, scheduler=scheduler)
    pipe.encode_image = lambda shown: torch.cat([case["in.image_emb"], case["in.null_image_emb"]])
    analytic = AnalyticInit(moments_of(case["in.Expectation_X0"][0], case["in.Tr_Cov_d"]))
    height, width = case["in.image"].shape[-2:]
    for run, info in config["runs"].items():
        start, *noises = case[f"in.{run}.latent_noise"]
        init = analytic if info["analytic"] else "standard"
        draws = [start, case[f"in.{run}.vae_noise"][0]]  # the published code encodes every frame, and uses one
        with unleak.applied(pipe, start=str(info["M"]), init=init), replayed(draws, noises) as seen:
            latents = pipe(
                (case["in.image"] + 1) / 2,
                prompt_embeds=case["in.text_emb"],
                negative_prompt_embeds=case["in.null_text_emb"],
                height=height,
                width=width,
                num_frames=start.shape[2],
                num_inference_steps=config["steps"],
                guidance_scale=config["guidance"],
                guidance_rescale=config["guidance_rescale"],
                fps=config["fs"],
                eta=config["eta"],
                output_type="latent",
            ).frames
        case.compare(f"{run}.latents", latents)
        if info["analytic"]:
            case.compare(f"{run}.init", seen["init"], share=CLOSED_FORM)
            level = Start.timestep(info["M"]).resolve(process_of(scheduler))
            case.compare(f"{run}.sqrt_alpha_bar", torch.tensor([level.alpha]), share=CLOSED_FORM)
        if f"out.{run}.video" in case:
            case.compare(f"{run}.video", pipe.decode_latents(latents))


def run_videocrafter_ddim(case: Case) -> None:
    config = case.config
    projection = Resampler(**resampler_config(config["image_proj_config"]))
    unet = networks(case, config["unet_weights"])
    filled(case.weights(config["image_proj_weights"]), image_projection=projection)
    analytic = AnalyticInit(moments_of(case["in.Expectation_X0"][0], case["in.Tr_Cov_d"]))
    *_, height, width = config["latent_shape"]

    def run(pipe: Any, draws: Iterable[Tensor], eta: float, guidance: float, latents: Any = None) -> Any:
        pipe.encode_image = lambda shown: torch.cat([case["in.image_emb"], case["in.null_image_emb"]])[: len(shown)]
        side = pipe.vae_scale_factor
        with replayed(draws, case["in.step_noise"] if eta else ()) as seen:
            seen["sample"] = pipe(
                PIXELS,
                prompt_embeds=case["in.text_emb"],
                negative_prompt_embeds=case["in.null_text_emb"],
                latents=latents,
                height=height * side,
                width=width * side,
                num_frames=config["latent_shape"][2],
                num_inference_steps=config["steps"],
                guidance_scale=guidance,
                fps=config["fps"],
                eta=eta,
                output_type="latent",
            ).frames
        return seen

    def pipeline(**settings: Any) -> Any:
        scheduler = LVDMScheduler(**videocrafter_process() | settings)
        vae = AutoencoderKL(latent_channels=config["latent_shape"][1])  # for the number of channels; nothing is encoded
        return pipeline_of(VideoCrafter1Pipeline, vae=vae, image_projection=projection, unet=unet, scheduler=scheduler)

    for name in dict.fromkeys(output.rpartition(".")[0] for output in case.outputs):
        if name.startswith("schedule"):
            continue
        start, eta = re.search(r"M(\d+)_eta([\d.]+)", name).groups()
        guidance = 1.0 if "noguidance" in name else config["runs"][name].get("guidance", config["guidance"])
        if name.startswith("startM_uniform."):
            # The published grid, which begins lower than its start and has a step too many where they do not divide
            # it: laid by hand.
            pipe = pipeline(reference=True)
            process = process_of(pipe.scheduler)
            latents = analytic.sample(case["in.init_eps"], Start.parse(start).resolve(process))
            pipe.scheduler.set_timesteps = partial(pipe.scheduler.set_timesteps, start=int(start))
            seen = run(pipe, (), float(eta), guidance, latents)
        else:
            trailing = "trailing" in name
            pipe = pipeline(timestep_spacing="uniform_trailing") if trailing else pipeline(reference=True)
            with unleak.applied(pipe, start=start, init=analytic):
                seen = run(pipe, [case["in.init_eps"]], float(eta), guidance)
        case.compare(f"{name}.sample", seen["sample"])
        if f"out.{name}.init" in case:
            case.compare(f"{name}.init", seen["init"], share=CLOSED_FORM)
        if float(eta) == 1:
            compare_grid(case, "schedule_eta1", seen)


CASES = {
    "dynamicrafter_schedule": run_schedule,
    "videocrafter_schedule": run_schedule,
    "dynamicrafter_ddim": run_dynamicrafter_ddim,
    "dynamicrafter_pipeline": run_dynamicrafter_pipeline,
    "videocrafter_ddim": run_videocrafter_ddim,
}
