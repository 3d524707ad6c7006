from unittest.mock import patch

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from tests.golden.analytic_init import moments_of
from tests.golden.case import CLOSED_FORM, FORWARD, Case
from unleak.core.initial import AnalyticInit
from unleak.core.process import Level
from unleak.families.animate_anything import pipeline
from unleak.families.animate_anything.convert import unet_weights
from unleak.families.animate_anything.pipeline import AnimateAnythingPipeline
from unleak.families.animate_anything.reference import ALPHA, SIGMA, reference_scheduler, reference_start
from unleak.families.animate_anything.unet import AnimateAnythingUNet


def run_init(case: Case) -> None:
    image, noise, video = case["in.image_latent"], case["in.noise"], case["in.video_latent"]
    assert ALPHA.item() == case.config["alpha_float16"]
    assert SIGMA.item() == case.config["sigma_float16"]
    case.compare("init", reference_start(image.expand_as(noise), noise), share=CLOSED_FORM)
    case.compare("init_from_video", reference_start(video, noise), share=CLOSED_FORM)
    case.compare("init_half", reference_start(image.half().expand_as(noise), noise.half()))
    # Nothing calls it there; the mean and the standard deviation are meant to be those of the level already.
    std = case["in.std"].half()
    assert std.item() == case.config["std_float16"]
    init = AnalyticInit(moments_of(case["in.mean"][0], std.double().square()))
    case.compare("init_analytic", init.sample(noise, Level(1.0, 0.0)), share=CLOSED_FORM)


def run_scheduler(case: Case) -> None:
    sample, output, noise = (case[f"in.step.{name}"] for name in ("sample", "model_output", "variance_noise"))
    for name in case.outputs:
        run, *what = name.split(".")
        config, start = case.config["scheduler_config"], case.config["values"][run]["num_train_timesteps"]
        steps = int(what[0].removeprefix("n")) if what[0][1:].isdigit() else case.config["steps_for_step_outputs"]
        scheduler = reference_scheduler(config, start, steps)
        if what == ["alphas_cumprod"]:
            ours = scheduler.alphas_cumprod
        elif what[-1] == "timesteps":
            ours = scheduler.timesteps
        else:
            t = scheduler.timesteps[int(what[0].removeprefix("step_"))]
            eta = float(what[1].removeprefix("eta"))
            ours = scheduler.step(output, t, sample, eta=eta, variance_noise=noise if eta else None).prev_sample
        case.compare(name, ours, share=CLOSED_FORM)


def unet_of(config: dict, weights: dict[str, Tensor]) -> AnimateAnythingUNet:
    unet = AnimateAnythingUNet(**config)
    unet.load_state_dict(unet_weights(weights))
    return unet.eval()


@torch.no_grad()
def run_unet(case: Case) -> None:
    unet = unet_of(case.config["config"], case.weights())
    told = {"mask": case["in.mask"], "motion": case["in.motion"]}
    x, timestep = case["in.sample"], case["in.timestep"]
    changes = {
        "sample": {},
        "sample_no_motion": {"motion": None},
        "sample_no_mask": {"mask": None},
        "sample_one_frame": {"sample": x[:, :, :1]},
        "sample_t501": {"timestep": 501},
    }
    for name in case.outputs:
        inputs = {"sample": x, "timestep": timestep, **told, **changes[name]}
        ours = unet(
            **inputs,
            encoder_hidden_states=case["in.encoder_hidden_states"],
            condition_latent=case["in.condition_latent"],
        ).sample
        case.compare(name, ours)


class Recorded(AnimateAnythingPipeline):
    """The pipeline on recorded latents of an image, instead of an image."""

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self.recorded


def loaded(network: nn.Module, weights: dict[str, Tensor], prefix: str) -> nn.Module:
    own = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    network.load_state_dict(own)
    return network.eval()


@torch.no_grad()
def run_pipeline(case: Case) -> None:
    weights, config = case.weights(), case.config
    vae = loaded(AutoencoderKL(**config["vae_config"]), weights, "vae.")
    text = CLIPTextModel(CLIPTextConfig(**config["text_encoder_config"]))
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
    )
    text = loaded(text, weights, "text_encoder.text_model.")
    pipe = Recorded(vae, text, None, unet_of(config["unet_config"], case.weights(config["unet_weights"])), scheduler)
    pipe.set_progress_bar_config(disable=True)
    pipe.recorded = case["in.condition_latent"]
    embeds = {
        f"{name}_embeds": text(case[f"in.{ids}"])[0]
        for name, ids in (("prompt", "input_ids"), ("negative_prompt", "negative_input_ids"))
    }
    for name, ours in embeds.items():
        torch.testing.assert_close(ours, case[f"in.{name}"], rtol=FORWARD, atol=FORWARD)

    _, _, frames, h, w = case["in.noise"].shape
    factor, (motion,) = pipe.vae_scale_factor, config["motion"]
    first: list[Tensor] = []

    def run(start: int, guidance: float) -> Tensor:
        del first[:]
        with patch.object(pipeline, "randn_tensor", lambda *_, **__: case["in.noise"]):
            return pipe(
                torch.zeros(1, 3, h * factor, w * factor),
                mask=case["in.mask"][0, 0, 0],
                height=h * factor,
                width=w * factor,
                num_frames=frames,
                num_inference_steps=config["steps"],
                guidance_scale=guidance,
                motion_strength=float(motion),
                reference_start=start,
                output_type="latent",
                **{name: value for name, value in embeds.items() if guidance > 1 or name == "prompt_embeds"},
            ).frames

    hook = pipe.unet.register_forward_pre_hook(lambda _, args: first.append(args[0]))
    for name, info in config["runs"].items():
        latents = run(info["M"], config["guidance"])
        case.compare(f"{name}.init", first[0][:1], share=CLOSED_FORM)
        case.compare(f"{name}.latents", latents)
        if f"out.{name}.video" in case:
            case.compare(f"{name}.video", pipe.decode_latents(latents))
    case.compare("no_guidance.latents", run([info["M"] for info in config["runs"].values()][1], 1.0))
    hook.remove()


CASES = {
    "animate_anything_init": run_init,
    "animate_anything_scheduler": run_scheduler,
    "animate_anything_unet": run_unet,
    "animate_anything_pipeline": run_pipeline,
}
