"""VideoCrafter1 (arXiv 2310.19512): a photo and a prompt to a video."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from unleak.attach.seams import Seam, init_noise_sigma
from unleak.families.lvdm.pipeline import Generators, Images, LVDMPipeline, LVDMPipelineOutput, OnStep
from unleak.families.videocrafter1.preset import MOTION
from unleak.families.videocrafter1.projection import LinearProjection

__all__ = ["VideoCrafter1Pipeline"]


def _unusual(arguments: Mapping[str, Any]) -> str | None:
    if arguments.get("image_guidance_scale") is not None:
        return "its guidance has three branches: leave image_guidance_scale away"
    return None


class VideoCrafter1Pipeline(LVDMPipeline):
    """The image-to-video model and the paper's fine-tunes. The image enters by tokens only, the same for all frames."""

    unleak_seam = Seam("b c f h w", init_noise_sigma, branches="batched", unusual=_unusual, motion=MOTION)
    unleak_parts: ClassVar[tuple[type, ...]] = (*LVDMPipeline.unleak_parts, LinearProjection)

    @torch.no_grad()
    def __call__(
        self,
        image: Images | None = None,
        prompt: str | list[str] | None = None,
        *,
        negative_prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 12.0,
        image_guidance_scale: float | None = None,
        guidance_rescale: float | None = None,
        fps: float | None = 24,
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
        negative_prompt: what guidance leads away from; None: an empty prompt.
        height, width, num_frames: None: those the network was trained on.
        guidance_scale: of text and image together; with `image_guidance_scale`, of the text, beside that of the image
            (three evaluations a step in place of two).
        guidance_rescale: share by which the guided prediction gets the deviation of the conditional one; None: 0.7
            where the network knows zero terminal SNR, as published, else 0.
        fps: what the network is told of the speed, in Hz; None: what it was trained on most.
        eta: 0 deterministic, 1 as noisy as DDPM.
        generator: one, or one for each video.
        latents: initial noise [b, c, f, h, w].
        decode_chunk_size: frames that the VAE decodes at once; None: about a million pixels.
        output_type: pil, np, pt or latent.

        Raises ValueError, in a sentence, for what cannot be done.
        """
        return self._generate(
            image,
            prompt,
            negative_prompt=negative_prompt,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            height=height,
            width=width,
            num_frames=num_frames,
            num_inference_steps=num_inference_steps,
            branches=self._guidance(guidance_scale, image_guidance_scale, guidance_rescale),
            fps=fps,
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

    def _features(self, encoded: Any) -> Tensor:
        """The plain projection takes the embedding of the whole image."""
        pooled = isinstance(self.image_projection, LinearProjection)
        features: Tensor = encoded.image_embeds if pooled else super()._features(encoded)
        return features
