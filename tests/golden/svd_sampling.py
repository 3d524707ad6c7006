from itertools import count
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    StableVideoDiffusionPipeline,
    UNetSpatioTemporalConditionModel,
)
from diffusers.pipelines.stable_video_diffusion import pipeline_stable_video_diffusion as diffusers_svd
from einops import rearrange
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

import unleak
from tests.golden.analytic_init import moments_of
from tests.golden.case import CLOSED_FORM, Case
from unleak.attach.schedule import started
from unleak.core.initial import AnalyticInit
from unleak.core.process import Level
from unleak.families.svd.view import SVDView


def scheduler_up_to(case: Case, sigma_max: float) -> EulerDiscreteScheduler:
    return EulerDiscreteScheduler.from_config(case.config["scheduler_config"] | {"sigma_max": float(sigma_max)})


def run_scheduler(case: Case) -> None:
    full = scheduler_up_to(case, max(case.config["sigma_max"]))
    for sigma_max in case.config["sigma_max"]:
        for steps in case.config["steps"]:
            run = f"smax{sigma_max}.n{steps}"
            scheduler = started(full, Level(1.0, float(sigma_max)), "rescale")
            scheduler.set_timesteps(steps)
            for name in ("sigmas", "timesteps", "init_noise_sigma"):
                case.compare(f"{run}.{name}", getattr(scheduler, name), share=CLOSED_FORM)
            x = case["in.sample"] * scheduler.init_noise_sigma
            for step in count():
                if f"out.{run}.step{step}.prev_sample" not in case:
                    break
                t = scheduler.timesteps[step]
                case.compare(f"{run}.step{step}.scaled", scheduler.scale_model_input(x, t), share=CLOSED_FORM)
                x, x_0 = scheduler.step(case["in.model_output"], t, x, return_dict=False)
                case.compare(f"{run}.step{step}.pred_x0", x_0, share=CLOSED_FORM)
                case.compare(f"{run}.step{step}.prev_sample", x, share=CLOSED_FORM)


def pipeline_of(case: Case) -> StableVideoDiffusionPipeline:
    weights, config = case.weights(), case.config

    def loaded(network: torch.nn.Module, weights: dict[str, Tensor], prefix: str = "") -> torch.nn.Module:
        own = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
        missing, unexpected = network.load_state_dict(own, strict=False)
        assert not unexpected
        assert all("position_ids" in name for name in missing), missing
        return network.eval().requires_grad_(False)

    unet = UNetSpatioTemporalConditionModel(**config["unet_config"])
    vae = AutoencoderKLTemporalDecoder(**config["vae_config"])
    image_encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**config["clip_vision_config"]))
    pipe = StableVideoDiffusionPipeline(
        unet=loaded(unet, case.weights(config["unet_weights"])),
        vae=loaded(vae, weights, "vae."),
        image_encoder=loaded(image_encoder, weights, "image_encoder."),
        scheduler=scheduler_up_to(case, max(run["sigma_max"] for run in config["runs"].values())),
        feature_extractor=CLIPImageProcessor(),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def recorded_call(pipe: StableVideoDiffusionPipeline, case: Case) -> tuple[dict[str, Tensor], Tensor]:
    """One call on the recorded image and noises: what the networks were given, and the final latents."""
    config, seen = case.config, {}
    noises = [case["in.image_noise"], case["in.latent_noise"]]

    def replay(shape: tuple[int, ...], **_: Any) -> Tensor:
        noise = noises.pop(0)
        assert noise.shape == tuple(shape)
        return noise

    def unet_is_given(module: Any, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        seen.setdefault("first_unet_input", args[0])
        seen.update(added_time_ids=kwargs["added_time_ids"], encoder_hidden_states=kwargs["encoder_hidden_states"])

    scale = EulerDiscreteScheduler.scale_model_input

    def scale_model_input(self: Any, sample: Tensor, timestep: Tensor) -> Tensor:
        seen.setdefault("init", sample[: len(case["in.latent_noise"])])
        return scale(self, sample, timestep)

    clip = pipe.image_encoder.register_forward_pre_hook(lambda _, args: seen.update(clip_preprocessed=args[0]))
    unet = pipe.unet.register_forward_pre_hook(unet_is_given, with_kwargs=True)
    names = ("height", "width", "num_frames", "num_inference_steps", "min_guidance_scale", "max_guidance_scale")
    names += ("fps", "motion_bucket_id", "noise_aug_strength")
    try:
        with (
            patch.object(diffusers_svd, "randn_tensor", replay),
            patch.object(EulerDiscreteScheduler, "scale_model_input", scale_model_input),
        ):
            image = Image.fromarray(case["in.images_uint8"][0].numpy())
            latents = pipe(image, **{name: config[name] for name in names}, output_type="latent").frames
    finally:
        clip.remove()
        unet.remove()
    assert not noises
    return seen, latents


def run_pipeline(case: Case) -> None:
    pipe = pipeline_of(case)
    mean = rearrange(case["in.Expectation_x_0"], "f c h w -> c f h w")
    analytic = AnalyticInit(moments_of(mean, case["in.trCov_d"]), reference=True)
    inputs: list[dict[str, Tensor]] = []
    for name, run in case.config["runs"].items():
        for output in case.outputs:
            # The published network mixes the items of a batch; its argument order is not the intended one.
            own = output.startswith(f"{name}.") and ".separate." not in output.removeprefix(name)
            batched = "separate" not in name and not output.endswith(".init")
            if own and (run["mode"] == "as_published" or batched):
                case.defect(output)
        if run["mode"] == "as_published":
            continue
        init = analytic if run["mode"] == "intended" else "standard"
        with unleak.applied(pipe, start=unleak.Start.sigma(run["sigma_max"]), init=init):
            seen, latents = recorded_call(pipe, case)
        inputs.append(seen)
        case.compare(f"{name}.init", seen["init"], share=CLOSED_FORM)
        if "separate" in name:
            case.compare(f"{name}.latents", latents)
            if f"out.{name}.video" in case:
                video = pipe.decode_latents(latents, latents.shape[1])
                case.compare(f"{name}.video", pipe.video_processor.postprocess_video(video, output_type="pt"))

    # Which run's first network input was recorded is not said: that of one of them.
    first = min(
        (seen["first_unet_input"] for seen in inputs), key=lambda x: (x - case["out.first_unet_input"]).abs().max()
    )
    case.compare("first_unet_input", first)
    for name in ("added_time_ids", "encoder_hidden_states", "clip_preprocessed"):
        case.compare(name, inputs[0][name])
    case.compare("clip_embed_pipeline", inputs[0]["encoder_hidden_states"][1:])
    image = rearrange(case["in.images_uint8"], "b h w c -> b c h w").float() / 127.5 - 1
    case.compare("clip_embed_training", SVDView(pipe).embed_image(image))
    for output in (output for output in case.outputs if output.startswith("resized_from_")):
        size = output.removeprefix("resized_from_")
        small = case[f"in.image_{size}_small"] * 2 - 1
        large = F.interpolate(small, tuple(map(int, size.split("x"))), mode="bilinear", align_corners=False)
        case.compare(output, diffusers_svd._resize_with_antialiasing(large, case[f"out.{output}"].shape[-2:]))


CASES = {"svd_scheduler": run_scheduler, "svd_pipeline": run_pipeline}
