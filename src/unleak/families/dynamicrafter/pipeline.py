"""DynamiCrafter (arXiv 2310.12190): a photo and a prompt, or two photos, to a video."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from unleak.attach.seams import Condition, Seam, init_noise_sigma
from unleak.families.dynamicrafter.preset import MOTION
from unleak.families.lvdm.pipeline import Generators, Images, LVDMPipeline, LVDMPipelineOutput, OnStep

__all__ = ["DynamiCrafterPipeline"]


def _image_channels(pipe: Any) -> tuple[slice, ...]:
    return (slice(None), slice(-pipe.vae.config.latent_channels, None))


def _unusual(arguments: Mapping[str, Any]) -> str | None:
    if arguments.get("image_guidance_scale") is not None:
        return "its guidance has three branches: leave image_guidance_scale away"
    if arguments.get("loop") or arguments.get("last_image") is not None:
        return "its image is not on every frame: leave loop and last_image away"
    return None


class DynamiCrafterPipeline(LVDMPipeline):
    """The 256, 512 and 1024 models, the one that interpolates, and the paper's fine-tunes.

    The image's latents are concatenated with the noisy ones on every frame, and its CLIP features, projected onto
    tokens for each frame, stand beside the text.
    """

    unleak_seam = Seam(
        "b c f h w",
        init_noise_sigma,
        branches="batched",
        condition=Condition(_image_channels, frames=2, every_frame=True, argument="sample"),
        unusual=_unusual,
        motion=MOTION,
    )

    @torch.no_grad()
    def __call__(
        self,
        image: Images | None = None,
        prompt: str | list[str] | None = None,
        *,
        last_image: Images | None = None,
        loop: bool = False,
        negative_prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        image_guidance_scale: float | None = None,
        guidance_rescale: float | None = None,
        fps: float | None = None,
        frame_stride: int | None = None,
        eta: float = 1.0,
        num_videos_per_prompt: int = 1,
        generator: Generators | None = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        decode_chunk_size: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: OnStep | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> LVDMPipelineOutput | tuple[Any]:
        """Animate `image` as `prompt` says.

        image: PIL, array or tensor in [0, 1], or a list of them; resized to height x width.
        last_image: what the video ends with (the model that interpolates). `loop`: it ends as it begins.
        negative_prompt: what guidance leads away from; None: an empty prompt.
        height, width, num_frames: None: those the network was trained on.
        guidance_scale: of text and image together; with `image_guidance_scale`, of the text, beside that of the image
            (three evaluations a step in place of two).
        guidance_rescale: share by which the guided prediction gets the deviation of the conditional one; None: 0.7
            where the network knows zero terminal SNR, as published, else 0.
        fps, frame_stride: what the network is told of the speed: frames in a second, or (256) how many frames of the
            original are one step; None: what it was trained on most.
        eta: 0 deterministic, 1 as noisy as DDPM.
        generator: one, or one for each video.
        latents: initial noise [b, c, f, h, w].
        decode_chunk_size: frames that the VAE decodes at once; None: about a million pixels.
        output_type: pil, np, pt or latent.

        Raises ValueError, in a sentence, for what cannot be done.
        """
        told = {"fps": fps, "frame_stride": frame_stride}
        known, other = self.config.condition_on, next(name for name in told if name != self.config.condition_on)
        if told[other] is not None:
            raise ValueError(f"{other}={told[other]:g}: this network is told the {known}; give that instead.")
        if loop:
            if last_image is not None:
                raise ValueError("loop ends the video with image, so last_image is without effect: give one of them.")
            last_image = image
        return self._generate(
            image,
            prompt,
            last_image=last_image,
            negative_prompt=negative_prompt,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            height=height,
            width=width,
            num_frames=num_frames,
            num_inference_steps=num_inference_steps,
            branches=self._guidance(guidance_scale, image_guidance_scale, guidance_rescale),
            fps=told[known],
            eta=eta,
            num_videos_per_prompt=num_videos_per_prompt,
            generator=generator,
            latents=latents,
            decode_chunk_size=decode_chunk_size,
            output_type=output_type,
            return_dict=return_dict,
            callback_on_step_end=callback_on_step_end,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
        )

    def condition_latents(
        self,
        first: Float[Tensor, "_ 3 H W"],
        last: Float[Tensor, "_ 3 H W"] | None,
        num_frames: int,
        *,
        videos: int,
        sample: bool = True,
        generator: Generators | None = None,
    ) -> Float[Tensor, "b c f h w"]:
        """The image on every frame; with a last one too, each in its place and nothing between."""
        begin = self.encode_latents(first, videos=videos, sample=sample, generator=generator)
        if last is None:
            return repeat(begin, "b c h w -> b c f h w", f=num_frames)
        between = begin.new_zeros((*begin.shape[:2], num_frames, *begin.shape[2:]))
        between[:, :, 0] = begin
        between[:, :, -1] = self.encode_latents(last, videos=videos, sample=sample, generator=generator)
        return between
