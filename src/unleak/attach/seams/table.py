"""The table of pipelines: class name (of the class or a base) -> its seam, or why it is refused.

Read off the `prepare_latents` and `__call__` of each class in diffusers 0.42.1; a later class of the same name that
differs in what a seam says fails the tests, which run the real ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unleak.attach.seams.presets import EQUAL_SNR, SVD, SVD_FIXES, VP
from unleak.attach.seams.seam import Arguments, Condition, Seam, config_sigma_max, init_noise_sigma
from unleak.attach.seams.tokens import channels_last, framepack, in_grid, joined_with_text, packed, text_first
from unleak.core.process import Level, NoiseProcess

__all__ = ["REFUSED", "SEAMS"]

CHANNELS_FIRST, FRAMES_FIRST, CHANNELS_LAST = "b c f h w", "b f c h w", "b f h w c"
ALL = slice(None)

# The grids that calls ask of their schedulers


def from_one_to_zero(steps: int) -> Mapping[str, Any]:
    """HunyuanVideo and its kin: N of N + 1 equal steps from 1 to 0, before any shift."""
    return {"sigmas": np.linspace(1.0, 0.0, steps + 1)[:-1]}


def from_one_to_last(steps: int) -> Mapping[str, Any]:
    """LTX and its kin: from 1 to 1/N, before any shift."""
    return {"sigmas": np.linspace(1.0, 1 / steps, steps)}


def linear_quadratic(steps: int) -> Mapping[str, Any]:
    """LTX with conditions: half of the steps down to sigma 0.975, the others along a parabola to 0."""
    if steps < 2:
        return {"timesteps": [1000.0]}
    slow, end = steps // 2, 0.025
    i, fast, excess = np.arange(steps), steps - slow, slow - end * steps
    curve = excess / (slow * fast**2)
    parabola = curve * i**2 + (end / slow - 2 * excess / fast**2) * i + curve * slow**2
    return {"timesteps": (1000 * (1 - np.where(i < slow, i * end / slow, parabola))).tolist()}


def zero_to_one(steps: int) -> Mapping[str, Any]:
    """Cosmos 2: N places of the scheduler's own Karras range."""
    return {"sigmas": torch.linspace(0, 1, steps, dtype=torch.float64)}


# Calls that cannot be honoured


def weak(name: str) -> Any:
    """Refuses a call that starts from its input noised to a `strength` below 1."""

    def refuse(pipe: Any, arguments: Arguments) -> str | None:
        del pipe
        if arguments.get(name) is None or arguments[name] >= 1:
            return None
        return (
            f"{name}={arguments[name]} starts from the noised input, which is a start of its own: call with {name}=1,"
            " or remove unleak for this call"
        )

    return refuse


def inpainting(pipe: Any, arguments: Arguments) -> str | None:
    """EasyAnimate: a `strength`, or a network without mask channels, for which the first noise is used once more."""
    if pipe.transformer.config.in_channels == pipe.vae.config.latent_channels:
        return "this checkpoint noises the known region with the initial noise at every step: use one of the InP kind"
    return weak("strength")(pipe, arguments)


def noise_scale(pipe: Any, arguments: Arguments) -> str | None:
    """LTX2: a noise scale of the caller's says where to start already."""
    del pipe
    given = arguments.get("noise_scale")
    return (
        None
        if given in (None, 1.0)
        else f"noise_scale={given} is a start of its own: call with noise_scale=1, or remove unleak for this call"
    )


# Frames in front of the video's


def cogvideox_padding(pipe: Any, arguments: Arguments) -> int:
    """CogVideoX 1.5 pads its latent frames at the front to a multiple of the temporal patch."""
    patch = pipe.transformer.config.patch_size_t
    frames = arguments.get("num_frames") or pipe.transformer.config.sample_frames
    return 0 if patch is None else -((frames - 1) // pipe.vae_scale_factor_temporal + 1) % patch


def reference_images(pipe: Any, arguments: Arguments) -> int:
    """Wan VACE puts one latent frame for each reference image in front."""
    del pipe
    images = arguments.get("reference_images")
    if images is None:
        return 0
    first = images[0] if isinstance(images, list | tuple) else images
    if isinstance(first, list | tuple):
        return len([image for image in first if image is not None])
    return len(images) if isinstance(images, list | tuple) else 1


def one_reference(pipe: Any, arguments: Arguments) -> int:
    """Wan Animate puts one latent frame for its reference image in front."""
    del pipe, arguments
    return 1


# What else changes with the start


def experts(pipe: Any, level: Level, process: NoiseProcess) -> str | None:
    """Wan 2.2: below the boundary the expert for high noise never runs."""
    boundary = pipe.config.get("boundary_ratio")
    timesteps = pipe.scheduler.config.num_train_timesteps
    if boundary is None or process.timestep_of(level) > boundary * timesteps:
        return None
    return (
        f"a start at timestep {process.timestep_of(level):.4g} never runs the expert for high noise, which ends at"
        f" {boundary * timesteps:.4g}: start above it to use both."
    )


def hold_condition(prepared: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Cosmos 2.5 moves its condition frames by latents - condition over a whole unit of time, which is right from
    sigma 1 only: from anywhere below, they must be at the condition already."""
    latents, condition, mask, indicator = prepared
    return torch.where(mask.bool(), condition, latents), condition, mask, indicator


# Where the image is in the denoiser's input


def last_channels(axis: int, size: str, *, after: int = 0) -> Callable[[Any], tuple[slice, ...]]:
    """The last channels, on `axis`, but `after` of them; as many as the VAE's `size`."""

    def place(pipe: Any) -> tuple[slice, ...]:
        count = getattr(pipe.vae.config, size)
        return (*[ALL] * axis, slice(-count - after, -after or None))

    return place


def first_frame(pipe: Any) -> tuple[slice, ...]:
    """The image is the first latent frame, `b c f h w`."""
    del pipe
    return (ALL, ALL, slice(0, 1))


def wan_image(pipe: Any) -> tuple[slice, ...]:
    """Wan: the last channels; the 5B model has it as the first frame instead."""
    return first_frame(pipe) if pipe.config.get("expand_timesteps") else last_channels(1, "z_dim")(pipe)


def hunyuan_image(pipe: Any) -> tuple[slice, ...]:
    """HunyuanVideo: the last channels but the mask, or the first frame, as the checkpoint says."""
    concat = pipe.transformer.config.image_condition_type == "latent_concat"
    return last_channels(1, "latent_channels", after=1)(pipe) if concat else first_frame(pipe)


WAN_IMAGE = Condition(wan_image, frames=2, blank_frames=True)

# From pipeline_animatediff.py and its kin: noise times init_noise_sigma, timesteps set before.
ANIMATEDIFF = Seam(CHANNELS_FIRST, init_noise_sigma, branches="batched", motion=VP)

# From pipeline_cogvideox_image2video.py; alphas of zero terminal SNR, hence presets by SNR.
COGVIDEOX = Seam(
    FRAMES_FIRST,
    init_noise_sigma,
    own_schedule=("timesteps",),
    lead=cogvideox_padding,
    branches="batched",
    low_pass=(0.25, 0.04),  # ALG's configs/cogvideox_alg.yaml, for CogVideoX-5b-I2V
    condition=Condition(last_channels(2, "latent_channels"), frames=1),
    image_tokens=text_first,
    motion=EQUAL_SNR,
)

# From pipeline_wan_i2v.py and its kin: noise as drawn, before the condition is encoded.
FLOW = Seam(CHANNELS_FIRST, branches="separate", motion=EQUAL_SNR)
WAN = replace(FLOW, warn=experts)

# From pipeline_hunyuan_skyreels_image2video.py: the grid asked for by sigmas.
HUNYUAN = Seam(CHANNELS_FIRST, own_schedule=("sigmas",), grid=from_one_to_zero, branches="separate", motion=EQUAL_SNR)

# From pipeline_ltx2_condition.py: noise in tokens, those of later conditions after the video's.
LTX2_TOKENS = Seam(
    "tokens",
    own_schedule=("sigmas", "timesteps"),
    latents_first=True,
    grid=from_one_to_last,
    others=("prepare_audio_latents",),
    refuse=noise_scale,
    image_tokens=packed,
    motion=EQUAL_SNR,
)

# From pipeline_cosmos2_5_predict.py.
COSMOS_2_5 = Seam(CHANNELS_FIRST, latents_first=True, finish=hold_condition, branches="separate", motion=EQUAL_SNR)

ANYFLOW = Seam(CHANNELS_FIRST, own_schedule=("timesteps", "sigmas"), latents_first=True, motion=EQUAL_SNR)

# From modular_pipelines/wan/before_denoise.py; Wan 2.2 is of the same class as Wan 2.1.
MODULAR_WAN = replace(
    WAN,
    draws="WanPrepareLatentsStep",
    own_schedule=("timesteps", "sigmas"),
    condition=WAN_IMAGE,
    image_tokens=in_grid,
    low_pass=(0.4, 0.2),
)

SEAMS: dict[str, Seam] = {
    # From pipeline_stable_video_diffusion.py; the image's latents are unscaled, and zero for the unconditional branch.
    "StableVideoDiffusionPipeline": Seam(
        FRAMES_FIRST,
        init_noise_sigma,
        own_schedule=("timesteps", "sigmas"),
        branches="batched",
        condition=Condition(last_channels(2, "latent_channels"), frames=1, every_frame=True, argument="sample"),
        motion=SVD,
        motion_fixes=SVD_FIXES,
    ),
    # From pipeline_pia.py: [latents, mask, image] on every frame.
    "PIAPipeline": replace(
        ANIMATEDIFF,
        refuse=weak("strength"),
        condition=Condition(last_channels(1, "latent_channels"), frames=2, every_frame=True, argument="sample"),
    ),
    # From pipeline_i2vgen_xl.py: zero terminal SNR; the image's latents are an argument of their own.
    "I2VGenXLPipeline": replace(
        ANIMATEDIFF,
        condition=Condition(first_frame, frames=2, argument="image_latents"),
        motion=EQUAL_SNR,
    ),
    "AnimateDiffPipeline": ANIMATEDIFF,
    # Perturbed attention makes a third part of the batch.
    "AnimateDiffPAGPipeline": replace(ANIMATEDIFF, branches=None),
    "AnimateDiffControlNetPipeline": ANIMATEDIFF,
    "AnimateDiffSparseControlNetPipeline": ANIMATEDIFF,
    "AnimateDiffSDXLPipeline": replace(ANIMATEDIFF, own_schedule=("timesteps", "sigmas")),
    "CogVideoXImageToVideoPipeline": COGVIDEOX,
    "CogVideoXFunControlPipeline": replace(COGVIDEOX, lead=None, condition=None, image_tokens=None),
    # From pipeline_consisid.py: as CogVideoX, without `timesteps=`.
    "ConsisIDPipeline": replace(COGVIDEOX, own_schedule=(), lead=None),
    # From pipeline_wan_i2v.py: [noise, 4 of mask, image]; the 5B model has frame 0 replaced at its input instead.
    # Low-pass as in ALG's configs/wan_alg.yaml, for Wan2.1-I2V-14B-480P.
    "WanImageToVideoPipeline": replace(WAN, condition=WAN_IMAGE, image_tokens=in_grid, low_pass=(0.4, 0.2)),
    "WanVACEPipeline": replace(WAN, lead=reference_images),
    "WanAnimatePipeline": replace(WAN, lead=one_reference),
    "LucyEditPipeline": WAN,
    "ChronoEditPipeline": replace(FLOW, condition=WAN_IMAGE, image_tokens=in_grid),
    "SkyReelsV2ImageToVideoPipeline": replace(FLOW, condition=WAN_IMAGE, image_tokens=in_grid),
    # From pipeline_skyreels_v2_diffusion_forcing_i2v.py: one copy of the scheduler for every latent frame.
    "SkyReelsV2DiffusionForcingImageToVideoPipeline": replace(FLOW, branches=None),
    "SkyReelsV2DiffusionForcingVideoToVideoPipeline": replace(FLOW, branches=None),
    # From pipeline_hunyuan_video_image2video.py: after the draw x = 0.999 x + 0.001 image, kept as it is. Low-pass
    # as in ALG's configs/hunyuan_video_alg.yaml.
    "HunyuanVideoImageToVideoPipeline": replace(
        HUNYUAN,
        latents_first=True,
        condition=Condition(hunyuan_image, frames=2),
        image_tokens=joined_with_text,
        low_pass=(0.625, 0.04),
    ),
    "HunyuanSkyreelsImageToVideoPipeline": replace(
        HUNYUAN, condition=Condition(last_channels(1, "latent_channels"), frames=2), image_tokens=joined_with_text
    ),
    "HunyuanVideo15ImageToVideoPipeline": replace(
        HUNYUAN,
        condition=Condition(last_channels(1, "latent_channels", after=1), frames=2),
        image_tokens=joined_with_text,
    ),
    # From pipeline_hunyuan_video_framepack.py: one draw and one schedule for every section.
    "HunyuanVideoFramepackPipeline": replace(HUNYUAN, latents_first=True, image_tokens=framepack),
    # From pipeline_ltx_image2video.py: packed after the draw, frame 0 clean.
    "LTXImageToVideoPipeline": Seam(
        CHANNELS_FIRST,
        own_schedule=("timesteps",),
        latents_first=True,
        grid=from_one_to_last,
        branches="batched",
        image_tokens=packed,
        motion=EQUAL_SNR,
    ),
    "LTXConditionPipeline": Seam(
        CHANNELS_FIRST,
        own_schedule=("timesteps",),
        grid=linear_quadratic,
        refuse=weak("denoise_strength"),
        branches="batched",
        image_tokens=packed,
        noise_arguments=("strength", "image_cond_noise_scale"),
        motion=EQUAL_SNR,
    ),
    # From pipeline_ltx_i2v_long_multi_prompt.py: noise drawn in the call, for every window from a seed of its own.
    "LTXI2VLongMultiPromptPipeline": Seam(None, own_schedule=("sigmas",), motion=EQUAL_SNR),
    # From pipeline_ltx2_image2video.py: frame 0 clean; sound on a copy of the scheduler.
    "LTX2ImageToVideoPipeline": replace(LTX2_TOKENS, layout=CHANNELS_FIRST, refuse=None),
    "LTX2ConditionPipeline": replace(LTX2_TOKENS, noise_arguments=("strength",)),
    "LTX2InContextPipeline": LTX2_TOKENS,
    "LTX2HDRPipeline": replace(LTX2_TOKENS, others=()),
    # From pipeline_sana_video_i2v.py: frame 0 clean.
    "SanaImageToVideoPipeline": Seam(
        CHANNELS_FIRST,
        own_schedule=("timesteps", "sigmas"),
        branches="batched",
        condition=Condition(first_frame, frames=2),
        motion=EQUAL_SNR,
    ),
    # From pipeline_sana_wm.py: frame 0 clean.
    "SanaWMPipeline": Seam(CHANNELS_FIRST, latents_first=True, motion=EQUAL_SNR),
    # From pipeline_kandinsky_i2v.py: frame 0 clean, the condition's channels appended after the draw.
    "Kandinsky5I2VPipeline": Seam(
        CHANNELS_LAST,
        branches="separate",
        image_tokens=channels_last,
        motion=EQUAL_SNR,
    ),
    "Kandinsky6TI2VAPipeline": Seam(
        CHANNELS_LAST,
        own_schedule=("timesteps", "sigmas"),
        others=("prepare_audio_latents",),
        motion=EQUAL_SNR,
    ),
    # From pipeline_motif_video_image2video.py: as LTX, with plain latents.
    "MotifVideoImage2VideoPipeline": Seam(
        CHANNELS_FIRST,
        own_schedule=("timesteps", "sigmas"),
        latents_first=True,
        grid=from_one_to_last,
        branches="separate",
        motion=EQUAL_SNR,
    ),
    # From pipeline_cosmos_video2world.py: noise times the configured sigma_max, condition frames replaced at the input.
    "CosmosVideoToWorldPipeline": Seam(
        CHANNELS_FIRST, config_sigma_max, branches="separate", image_tokens=in_grid, motion=EQUAL_SNR
    ),
    "Cosmos2VideoToWorldPipeline": Seam(
        CHANNELS_FIRST,
        config_sigma_max,
        grid=zero_to_one,
        branches="separate",
        image_tokens=in_grid,
        motion=EQUAL_SNR,
    ),
    "Cosmos2_5_PredictBasePipeline": replace(COSMOS_2_5, image_tokens=in_grid),
    "Cosmos2_5_TransferPipeline": COSMOS_2_5,
    # From pipeline_cosmos3_omni.py: frame 0 clean; sound and action are drawn after, and left as they are.
    "Cosmos3OmniPipeline": Seam(CHANNELS_FIRST, latents_first=True, motion=EQUAL_SNR),
    # From pipeline_anyflow_far.py: one draw for all chunks, one schedule for each.
    "AnyFlowPipeline": ANYFLOW,
    "AnyFlowFARPipeline": ANYFLOW,
    # From pipeline_easyanimate_inpaint.py: init_noise_sigma where the scheduler has one.
    "EasyAnimateInpaintPipeline": Seam(
        CHANNELS_FIRST, init_noise_sigma, own_schedule=("timesteps",), refuse=inpainting, motion=EQUAL_SNR
    ),
    "EasyAnimateControlPipeline": Seam(CHANNELS_FIRST, init_noise_sigma, own_schedule=("timesteps",), motion=EQUAL_SNR),
    # Modular pipelines, from the blocks in diffusers/modular_pipelines: the schedule is always set before the draw.
    "WanImage2VideoModularPipeline": MODULAR_WAN,
    "Wan22Image2VideoModularPipeline": MODULAR_WAN,
    "HunyuanVideo15ModularPipeline": replace(
        HUNYUAN,
        draws="HunyuanVideo15PrepareLatentsStep",
        condition=Condition(last_channels(1, "latent_channels", after=1), frames=2),
        image_tokens=joined_with_text,
    ),
    "LTXModularPipeline": Seam(
        CHANNELS_FIRST,
        draws="LTXPrepareLatentsStep",
        own_schedule=("timesteps", "sigmas"),
        grid=from_one_to_last,
        branches="separate",
        image_tokens=packed,
        motion=EQUAL_SNR,
    ),
}
"""Pipeline class name (of the class or a base) -> its seam."""

_STRENGTH = (
    "it starts from the caller's own video, noised to `strength`, which is a start already: lower `strength` there, or"
    " use the image-to-video pipeline of the same model"
)
_NO_NOISE = "it starts from latents made before, not from noise: attach to the pipeline that makes them"
_DISTILLED = (
    "it runs the few fixed steps it was distilled for, each of them at a level of its own, so there is none to skip"
)
_STAGES = (
    "its scheduler samples in stages, each with a range of sigmas of its own, so there is no one level to start at"
)
_PYRAMID = "it samples a pyramid of resolutions, each from noise of its own, so there is no one level to start at"
_TEXT = "it makes videos of a text, and unleak is for videos that stand still because of their conditioning image"

REFUSED: dict[str, str] = {
    "AnimateDiffVideoToVideoPipeline": _STRENGTH,
    "AnimateDiffVideoToVideoControlNetPipeline": _STRENGTH,
    "CogVideoXVideoToVideoPipeline": _STRENGTH,
    "WanVideoToVideoPipeline": _STRENGTH,
    "VideoToVideoSDPipeline": _STRENGTH,
    "LTXLatentUpsamplePipeline": "it enlarges latents and denoises nothing",
    "LTX2LatentUpsamplePipeline": "it enlarges latents and denoises nothing",
    "LTX2VideoDiffusionDecodePipeline": "it decodes finished latents",
    "Kandinsky6SRPipeline": _NO_NOISE,
    "LTX2DFRPipeline": _DISTILLED,
    "LTX2DFRTemporalRefinePipeline": _NO_NOISE,
    "HeliosPipeline": _STAGES,
    "HeliosPyramidPipeline": _PYRAMID,
    "HeliosModularPipeline": _STAGES,
    "HeliosPyramidModularPipeline": _PYRAMID,
    "HeliosPyramidDistilledModularPipeline": _PYRAMID,
    "WanModularPipeline": _TEXT,
    "Wan22ModularPipeline": _TEXT,
    "Wan22VaceModularPipeline": "its reference images are latent frames in front of the video, whose number its blocks"
    " alone know: use WanVACEPipeline",
    "WanAnimate2ModularPipeline": "it draws new noise for every segment inside its denoising loop, and no test of"
    " unleak has run it: use WanAnimatePipeline",
    "MiniMaxH3ModularPipeline": "it samples the video and its sound on two schedulers at once, so a start of one would"
    " leave the other behind",
    "LTX2ModularPipeline": "no test of unleak has run its blocks: use LTX2ImageToVideoPipeline, or"
    " LTX2ConditionPipeline",
    "Cosmos3OmniModularPipeline": "no test of unleak has run its blocks: use Cosmos3OmniPipeline",
    "Cosmos3DistilledModularPipeline": _DISTILLED,
}
"""Pipeline class name -> why it is refused, and what to do."""
