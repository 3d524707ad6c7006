"""A model family of your own in one file, without a fork of unleak: a toy network, its pipeline, its view.

An installed package makes it known to every command: it names this module as an entry point.

    [project.entry-points."unleak.plugins"]
    drift = "my_package.family"

Then `unleak generate photo.jpg --model drift` works, and so do `diagnose`, `stats` and the others; a folder that
`DriftPipeline.save_pretrained` wrote serves as well as the name. `tests/extend/test_family.py` runs all of this.
"""

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, ConfigMixin, DiffusionPipeline, FlowMatchEulerDiscreteScheduler, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor
from torch import nn

from unleak.attach.seams import Seam
from unleak.attach.seams.presets import EQUAL_SNR
from unleak.families.image_vae import ImageVAE
from unleak.families.registry import Family, register_family
from unleak.families.spec import ModelSpec
from unleak.families.view import Levels, View, in_own_dtype, per_clip


class DriftNet(ModelMixin, ConfigMixin):
    """A network that is told x_t [b c f h w], the time in [0, 1000] and the image's latents [b c h w]."""

    @register_to_config
    def __init__(self, channels: int = 4):
        super().__init__()
        self.mix = nn.Conv3d(2 * channels + 1, channels, kernel_size=3, padding=1)

    def forward(self, hidden_states, timestep, image, return_dict=True):
        x_t = hidden_states
        still = image[:, :, None].expand_as(x_t)
        time = (timestep.to(x_t) / 1000).view(-1, 1, 1, 1, 1).expand_as(x_t[:, :1])
        velocity = self.mix(torch.cat([x_t, still, time], dim=1))
        return BaseOutput(sample=velocity) if return_dict else (velocity,)


@dataclass
class DriftOutput(BaseOutput):
    frames: list


class DriftPipeline(DiffusionPipeline):
    """`pipe(image).frames[0]`: a rectified flow from noise to a video of the image."""

    # What unleak has to know to attach to it: the axes of the noise that `prepare_latents` draws, and the presets.
    unleak_seam = Seam("b c f h w", motion=EQUAL_SNR)
    unleak_parts = (DriftNet,)
    model_cpu_offload_seq = "unet->vae"

    def __init__(self, vae: AutoencoderKL, unet: DriftNet, scheduler: FlowMatchEulerDiscreteScheduler):
        super().__init__()
        self.register_modules(vae=vae, unet=unet, scheduler=scheduler)
        self.video_processor = VideoProcessor(vae_scale_factor=2 ** (len(vae.config.block_out_channels) - 1))

    def prepare_latents(self, shape, dtype, device, generator):
        return randn_tensor(shape, generator=generator, device=device, dtype=dtype)

    @torch.no_grad()
    def __call__(
        self,
        image,
        height: int = 64,
        width: int = 64,
        num_frames: int = 8,
        num_inference_steps: int = 12,
        generator: torch.Generator | None = None,
        output_type: str = "pil",
        callback_on_step_end=None,
        callback_on_step_end_tensor_inputs=("latents",),
    ):
        device, dtype = self._execution_device, self.unet.dtype
        pixels = self.video_processor.preprocess(image, height=height, width=width).to(device, dtype)
        still = ImageVAE(self.vae).encode_video(pixels[:, None])[:, :, 0]
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        b, c, h, w = still.shape
        latents = self.prepare_latents((b, c, num_frames, h, w), dtype, device, generator)
        for i, t in enumerate(self.scheduler.timesteps):
            velocity = self.unet(latents, t.expand(b), still).sample
            latents = self.scheduler.step(velocity, t, latents, return_dict=False)[0]
            if callback_on_step_end is not None:
                callback_on_step_end(self, i, t, {"latents": latents})
        video = self.decode_latents(latents)
        return DriftOutput(frames=self.video_processor.postprocess_video(video, output_type=output_type))

    def decode_latents(self, latents):
        """Decode latents [b c f h w] to videos [b 3 f H W] in [-1, 1]."""
        raw = latents.transpose(1, 2) / self.vae.config.scaling_factor
        return torch.stack([self.vae.decode(frames).sample for frames in raw]).transpose(1, 2)


class DriftView(View):
    """The view of a `DriftPipeline`: all that diagnosis, statistics and training see of the family."""

    absent = "a black picture"

    @property
    def networks(self):
        return {"unet": self.pipe.unet}

    def encode_video(self, video):
        return ImageVAE(self.pipe.vae).encode_video(video)

    def encode_condition(self, image, prompts, num_frames):
        return self.encode_video(image[:, None])[:, :, 0]

    def without_image(self, image, prompts, num_frames):
        return self.encode_condition(torch.full_like(image, -1), prompts, num_frames)

    def predict_clean(self, x_t, level, condition):
        """Return x_0 = x_t - sigma v."""
        sigma = Levels.of(level, x_t).flow_sigma
        velocity = in_own_dtype(self.pipe.unet, x_t, sigma * 1000, condition)
        return x_t - per_clip(sigma, x_t) * velocity

    def decode(self, latents):
        return self.pipe.decode_latents(latents.to(self.pipe.vae.dtype)).transpose(1, 2)


register_family(
    Family(
        "drift",
        models=(
            ModelSpec(
                name="drift",
                source="my-organisation/drift",
                pipeline="DriftPipeline",
                family="drift",
                summary="a toy: 8 frames of 64x64",
                licence="Apache-2.0",
                terms="free to use and change",
                fps=8,
                why="the SNR of the paper's start, carried over",
            ),
        ),
        views={"DriftPipeline": f"{__name__}:DriftView"},
        pipelines={"DriftPipeline": f"{__name__}:DriftPipeline"},
        fps={"DriftPipeline": 8},
    )
)


def tiny() -> DriftPipeline:
    """Make a pipeline with random weights, small enough for a test."""
    vae = AutoencoderKL(
        block_out_channels=(4, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=2,
    )
    return DriftPipeline(vae.eval(), DriftNet().eval(), FlowMatchEulerDiscreteScheduler(shift=3.0))
