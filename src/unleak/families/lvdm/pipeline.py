"""What the pipelines of DynamiCrafter and VideoCrafter1 share: text, image tokens, guidance, the loop, the VAE."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import PIL.Image
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, SchedulerMixin
from diffusers.models import ModelMixin
from diffusers.utils import BaseOutput, logging
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPVisionModelWithProjection, PreTrainedTokenizerBase

from unleak.attach.seams import Seam
from unleak.families.lvdm import PIXELS_AT_ONCE
from unleak.families.lvdm.resampler import Resampler
from unleak.families.lvdm.scheduler import LVDMScheduler
from unleak.families.lvdm.unet import LVDMUNet

__all__ = ["Branches", "Generators", "Images", "LVDMPipeline", "LVDMPipelineOutput", "OnStep"]

logger = logging.get_logger(__name__)

Images = PIL.Image.Image | np.ndarray | Tensor | list[PIL.Image.Image] | list[np.ndarray] | list[Tensor]
Generators = torch.Generator | list[torch.Generator]
OnStep = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]

CONDITIONS = ("fps", "frame_stride")


@dataclass
class LVDMPipelineOutput(BaseOutput):
    """`frames`: videos of the batch, as lists of PIL images, or [b, f, H, W, 3] (np), [b, f, 3, H, W] (pt), or latents
    [b, c, f, h, w]."""

    frames: list[list[PIL.Image.Image]] | np.ndarray | Tensor


@dataclass(frozen=True)
class Branches:
    """The predictions that a guided step combines, in the order in which a batched evaluation holds them.

    [conditional]; [unconditional, conditional]; or [unconditional, image only, conditional].
    """

    scale: float
    image_scale: float | None
    rescale: float

    @property
    def count(self) -> int:
        """How many."""
        if self.image_scale is not None:
            return 3
        return 2 if self.scale > 1 else 1

    def combine(self, predictions: Sequence[Tensor]) -> Tensor:
        """u + w (c - u), or u + w_i (i - u) + w (c - i), moved towards the deviation of c by the share `rescale`
        (arXiv 2305.08891, section 3.4)."""
        unconditional, conditional = predictions[0], predictions[-1]
        if self.count == 1:
            return conditional
        if self.image_scale is None:
            guided = unconditional + self.scale * (conditional - unconditional)
        else:
            image = predictions[1]
            guided = unconditional + self.image_scale * (image - unconditional) + self.scale * (conditional - image)
        if not self.rescale:
            return guided
        axes = tuple(range(1, guided.ndim))
        ratio = conditional.std(axes, keepdim=True) / guided.std(axes, keepdim=True)
        return guided * (self.rescale * ratio + (1 - self.rescale))


class LVDMPipeline(DiffusionPipeline):
    """Components and machinery; the families bring `__call__`, their seam and what the image is to the network.

    sample_height, sample_width: pixels of the videos that the network was trained on.
    condition_on: whether the network is told an `fps` (Hz) or a `frame_stride`.

    A component may be None for uses that need only others.
    """

    model_cpu_offload_seq = "text_encoder->image_encoder->image_projection->unet->vae"
    _callback_tensor_inputs: ClassVar[list[str]] = ["latents", "encoder_hidden_states"]
    unleak_seam: Seam
    unleak_parts: ClassVar[tuple[type, ...]] = (LVDMUNet, Resampler, LVDMScheduler)
    """Our own classes among the components. A folder may name these; that they stand here imports their modules."""

    def __init__(
        self,
        vae: AutoencoderKL | None,
        text_encoder: CLIPTextModel | None,
        tokenizer: PreTrainedTokenizerBase | None,
        image_encoder: CLIPVisionModelWithProjection | None,
        feature_extractor: CLIPImageProcessor | None,
        image_projection: ModelMixin | None,
        unet: LVDMUNet | None,
        scheduler: SchedulerMixin,
        sample_height: int = 320,
        sample_width: int = 512,
        condition_on: str = "fps",
    ) -> None:
        super().__init__()
        if condition_on not in CONDITIONS:
            raise ValueError(f"condition_on {condition_on!r} is unknown: give {' or '.join(CONDITIONS)}.")
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            image_encoder=image_encoder,
            feature_extractor=feature_extractor,
            image_projection=image_projection,
            unet=unet,
            scheduler=scheduler,
        )
        self.register_to_config(sample_height=sample_height, sample_width=sample_width, condition_on=condition_on)
        levels = len(vae.config.block_out_channels) if vae is not None else 4
        self.vae_scale_factor = 2 ** (levels - 1)
        self.video_processor = VideoProcessor(vae_scale_factor=self.vae_scale_factor)
        self._branches = Branches(1.0, None, 0.0)
        self._interrupt = False

    def enable_guidance_slicing(self) -> None:
        """Evaluate the branches of guidance one after the other: half the activations, a little slower."""
        self.unleak_seam = replace(self.unleak_seam, branches="separate")

    def disable_guidance_slicing(self) -> None:
        """Evaluate the branches of guidance in one batch, as by default."""
        self.unleak_seam = replace(self.unleak_seam, branches="batched")

    @property
    def guidance_slicing(self) -> bool:
        """Whether the branches of guidance are evaluated one after the other."""
        return self.unleak_seam.branches == "separate"

    @property
    def guidance_scale(self) -> float:
        """Of the running or latest call."""
        return self._branches.scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the running or latest call is guided."""
        return self._branches.count > 1

    @property
    def num_timesteps(self) -> int:
        """Of the running or latest call."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """Set `_interrupt` in a callback to skip the remaining steps."""
        return self._interrupt

    # What the network is told

    @torch.no_grad()
    def encode_prompt(self, prompt: str | list[str]) -> Float[Tensor, "b l d"]:
        """Encode prompts as text tokens [b, l, d]. A prompt too long for the text encoder is cut off, with a warning.

        Short ones are padded as OpenCLIP pads them, with zeros. A padding token of the tokenizer's own would be its
        first word, "!", and change how the "!" in a prompt is read.
        """
        length = self.unet.config.text_tokens if self.unet is not None else self.tokenizer.model_max_length
        prompts = [prompt] if isinstance(prompt, str) else prompt
        whole = self.tokenizer(prompts).input_ids
        if cut := [text for text, ids in zip(prompts, whole, strict=True) if len(ids) > length]:
            logger.warning(f"the text encoder reads {length} tokens; the end of this is cut off: {cut[0]}")
        cut_off = self.tokenizer(prompts, max_length=length, truncation=True).input_ids
        padded = torch.tensor([ids + [0] * (length - len(ids)) for ids in cut_off])
        tokens: Tensor = self.text_encoder(padded.to(self._execution_device))[0]
        return tokens

    @torch.no_grad()
    def encode_image(self, image: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b n e"] | Float[Tensor, "b e"]:
        """What the image encoder says of images in [-1, 1]; zeros stand for no image."""
        # Not at the top: that module loads half of transformers, which whoever holds a pipeline has done already.
        from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing

        encoder, processor = self.image_encoder, self.feature_extractor
        pixels = _resize_with_antialiasing(image.float(), (encoder.config.image_size,) * 2)
        mean, std = (pixels.new_tensor(v).view(3, 1, 1) for v in (processor.image_mean, processor.image_std))
        pixels = ((pixels + 1) / 2 - mean) / std
        return self._features(encoder(pixels.to(self._execution_device, encoder.dtype)))

    def _features(self, encoded: Any) -> Tensor:
        """What the projection wants of the image encoder's output: every patch, before the last norm."""
        hidden: Tensor = encoded.last_hidden_state
        return hidden

    def project_image(self, features: Tensor, num_frames: int) -> Float[Tensor, "b k d"]:
        """Image tokens for a video of `num_frames`; where frames have tokens of their own, those of the first ones."""
        projection = self.image_projection
        tokens: Tensor = projection(features.to(self._execution_device, projection.dtype))
        if self.unet.config.image_tokens_per_frame and tokens.shape[1] > self.unet.config.image_tokens:
            tokens = tokens[:, : num_frames * self.unet.config.image_tokens]
        return tokens

    def prepare_latents(
        self,
        batch_size: int,
        num_frames: int,
        height: int,
        width: int,
        device: torch.device,
        generator: Generators | None,
        latents: Tensor | None = None,
    ) -> Float[Tensor, "b c f h w"]:
        """Initial noise, float32, times the scheduler's `init_noise_sigma`; `latents` of the caller's likewise."""
        factor = self.vae_scale_factor
        shape = (batch_size, self.unet.config.out_channels, num_frames, height // factor, width // factor)
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        elif tuple(latents.shape) != shape:
            raise ValueError(f"latents are {list(latents.shape)}, but this call needs {list(shape)} (b c f h w).")
        initial: Tensor = latents.to(device, torch.float32) * self.scheduler.init_noise_sigma
        return initial

    @torch.no_grad()
    def encode_latents(
        self,
        image: Float[Tensor, "b 3 H W"],
        *,
        videos: int,
        sample: bool = True,
        generator: Generators | None = None,
        chunk: int | None = None,
    ) -> Float[Tensor, "b2 c h w"]:
        """Model latents of images in [-1, 1]: samples of the posterior, as many of each image as make `videos`, or
        its mode."""
        moments, scale = self.raw_moments(image, chunk=chunk), self.vae.config.scaling_factor
        mean, std = (each.repeat_interleave(videos // len(image), dim=0) for each in moments)
        if not sample:
            return mean * scale
        eps = randn_tensor(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return (mean + std * eps) * scale

    @torch.no_grad()
    def raw_moments(
        self, image: Float[Tensor, "b 3 H W"], *, chunk: int | None = None
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
        """Mean and standard deviation of the VAE's posterior of images in [-1, 1], float32, not scaled."""
        with _upcast(self.vae) as vae:
            pieces = image.to(self._execution_device, vae.dtype).split(chunk or self._frames_at_once(*image.shape[-2:]))
            posteriors = [vae.encode(piece).latent_dist for piece in pieces]
        mean, std = (
            torch.cat([getattr(posterior, name) for posterior in posteriors]).float() for name in ("mean", "std")
        )
        return mean, std

    @torch.no_grad()
    def decode_latents(
        self, latents: Float[Tensor, "b c f h w"], *, chunk: int | None = None
    ) -> Float[Tensor, "b 3 f H W"]:
        """Videos in [-1, 1] (not clamped), float32, `chunk` frames at a time."""
        flat = rearrange(latents, "b c f h w -> (b f) c h w") / self.vae.config.scaling_factor
        factor = self.vae_scale_factor
        chunk = chunk or self._frames_at_once(flat.shape[-2] * factor, flat.shape[-1] * factor)
        with _upcast(self.vae) as vae:
            frames = [vae.decode(piece.to(vae.dtype)).sample.float() for piece in flat.split(chunk)]
        return rearrange(torch.cat(frames), "(b f) c h w -> b c f h w", b=len(latents))

    # The call

    def _generate(
        self,
        image: Images | None,
        prompt: str | list[str] | None,
        *,
        negative_prompt: str | list[str] | None,
        prompt_embeds: Tensor | None,
        negative_prompt_embeds: Tensor | None,
        height: int | None,
        width: int | None,
        num_frames: int | None,
        num_inference_steps: int,
        branches: Branches,
        fps: float | None,
        eta: float,
        num_videos_per_prompt: int,
        generator: Generators | None,
        latents: Tensor | None,
        decode_chunk_size: int | None,
        output_type: str,
        return_dict: bool,
        callback_on_step_end: OnStep | None,
        callback_on_step_end_tensor_inputs: Sequence[str],
        last_image: Images | None = None,
    ) -> LVDMPipelineOutput | tuple[Any]:
        height = height or self.config.sample_height
        width = width or self.config.sample_width
        num_frames = num_frames or self.unet.config.temporal_length
        self._check(height, width, num_frames, output_type, callback_on_step_end_tensor_inputs)
        pixels = self._pixels(image, height, width, "image")
        prompts = self._batch(len(pixels), prompt, prompt_embeds)
        count = len(prompts) if prompts is not None else len(prompt_embeds)  # type: ignore[arg-type]
        batch = count * num_videos_per_prompt
        if isinstance(generator, list) and len(generator) != batch:
            raise ValueError(f"{len(generator)} generators for {batch} videos: give one for each, or a single one.")
        ends = None if last_image is None else self._pixels(last_image, height, width, "last_image")
        if ends is not None and len(ends) not in (1, count):
            raise ValueError(f"{len(ends)} last images for {count} videos: give one, or one for each.")
        self._branches, self._interrupt = branches, False
        device = self._execution_device

        negatives = self._negatives(negative_prompt, negative_prompt_embeds, count)
        text = self.encode_prompt(prompts) if prompts is not None else prompt_embeds
        assert text is not None
        tokens = self._tokens(text, negatives, pixels, num_frames)
        encoder_hidden_states = torch.cat([branch.repeat_interleave(num_videos_per_prompt, 0) for branch in tokens])

        self.scheduler.set_timesteps(num_inference_steps)  # on the CPU, where the scheduler's arithmetic is
        timesteps = self.scheduler.timesteps
        self._num_timesteps = len(timesteps)
        latents = self.prepare_latents(batch, num_frames, height, width, device, generator, latents)
        condition = self.condition_latents(
            pixels,
            ends,
            num_frames,
            videos=batch,
            generator=generator,
        )

        dtype, at_once = self.unet.dtype, 1 if self.guidance_slicing else branches.count
        encoder_hidden_states = encoder_hidden_states.to(device, dtype)
        # The image's channels are written once; every step writes the noisy ones.
        channels = latents.shape[1]
        extra = 0 if condition is None else condition.shape[1]
        network_input = latents.new_empty((at_once, batch, channels + extra, *latents.shape[2:]), dtype=dtype)
        if condition is not None:
            network_input[:, :, channels:] = condition.to(device, dtype)
        rate = None if fps is None else torch.full((at_once * batch,), fps, device=device)
        on_device = timesteps.to(device)
        options = self._step_options(eta, generator)

        def predict(moment: Tensor, states: Tensor) -> Tensor:
            sample = network_input.flatten(0, 1)
            prediction: Tensor = self.unet(sample, moment, encoder_hidden_states=states, fps=rate, return_dict=False)[0]
            return prediction

        with self.progress_bar(total=num_inference_steps) as bar:
            for i, t in enumerate(timesteps):
                if self.interrupt:
                    continue
                network_input[:, :, :channels] = self.scheduler.scale_model_input(latents, t)
                moment = on_device[i].expand(at_once * batch)
                if at_once == branches.count:
                    predictions = predict(moment, encoder_hidden_states).chunk(branches.count)
                else:  # the conditional one first
                    last_first = reversed(encoder_hidden_states.chunk(branches.count))
                    predictions = tuple(predict(moment, states) for states in last_first)[::-1]
                # Not before all are there: a strategy may still change an earlier one in place.
                prediction = branches.combine([prediction.float() for prediction in predictions])
                latents = self.scheduler.step(prediction, t, latents, **options, return_dict=False)[0]
                if callback_on_step_end is not None:
                    known = {"latents": latents, "encoder_hidden_states": encoder_hidden_states}
                    asked = {name: known[name] for name in callback_on_step_end_tensor_inputs}
                    changed = callback_on_step_end(self, i, t, asked) or {}
                    latents = changed.pop("latents", latents)
                    encoder_hidden_states = changed.pop("encoder_hidden_states", encoder_hidden_states)
                if (i + 1) % self.scheduler.order == 0 or i + 1 == len(timesteps):
                    bar.update()

        frames: Any = latents
        if output_type != "latent":
            video = self.decode_latents(latents, chunk=decode_chunk_size)
            frames = self.video_processor.postprocess_video(video, output_type=output_type)
        self.maybe_free_model_hooks()
        return LVDMPipelineOutput(frames=frames) if return_dict else (frames,)

    def condition_latents(
        self,
        first: Float[Tensor, "b 3 H W"],
        last: Float[Tensor, "b 3 H W"] | None,
        num_frames: int,
        *,
        videos: int,
        sample: bool = True,
        generator: Generators | None = None,
    ) -> Float[Tensor, "b2 c f h w"] | None:
        """Latents that are concatenated with the noisy ones of all `videos`; None: nothing is."""
        del first, last, num_frames, videos, sample, generator
        return None

    def _tokens(
        self,
        text: Tensor,
        negatives: list[str] | Tensor,
        pixels: Float[Tensor, "images 3 H W"],
        num_frames: int,
    ) -> list[Float[Tensor, "b l d"]]:
        """Text and image tokens of every branch."""
        text = text.to(self._execution_device)
        guided = self._branches.count > 1
        shown = torch.cat([pixels, torch.zeros_like(pixels[:1])]) if guided else pixels
        image_tokens = self.project_image(self.encode_image(shown), num_frames).to(text)
        image = image_tokens[: len(pixels)].expand(len(text), -1, -1)
        conditional = torch.cat([text, image], dim=1)
        if not guided:
            return [conditional]
        null = negatives if isinstance(negatives, Tensor) else self.encode_prompt(negatives)
        null = null.to(text).expand(len(text), -1, -1)
        unconditional = torch.cat([null, image_tokens[-1:].expand(len(text), -1, -1)], dim=1)
        if self._branches.count == 2:
            return [unconditional, conditional]
        return [unconditional, torch.cat([null, image], dim=1), conditional]

    def _guidance(self, scale: float, image_scale: float | None, rescale: float | None) -> Branches:
        if rescale is None:
            rescale = 0.7 if self.scheduler.config.get("rescale_betas_zero_snr") else 0.0
        return Branches(scale, image_scale, rescale)

    def _step_options(self, eta: float, generator: Generators | None) -> dict[str, Any]:
        """Of `eta` and `generator`, what the scheduler's step takes."""
        taken = inspect.signature(self.scheduler.step).parameters
        return {name: value for name, value in (("eta", eta), ("generator", generator)) if name in taken}

    def _pixels(self, image: Images | None, height: int, width: int, name: str) -> Float[Tensor, "b 3 H W"]:
        if image is None:
            raise ValueError(f"{name} is missing: give a PIL image, an array or tensor in [0, 1], or a list of them.")
        pixels: Tensor = self.video_processor.preprocess(image, height=height, width=width)
        return pixels.to(self._execution_device, torch.float32)

    def _batch(self, images: int, prompt: str | list[str] | None, prompt_embeds: Tensor | None) -> list[str] | None:
        """The prompts, one for each video (of several of a prompt: for all of them); None: embeddings are given."""
        if (prompt is None) == (prompt_embeds is None):
            raise ValueError(
                "the prompt is missing: say what happens, or give '' to leave it to the image."
                if prompt is None
                else "prompt and prompt_embeds are both given: give one of them."
            )
        if prompt is None:
            prompts, count = None, len(prompt_embeds)  # type: ignore[arg-type]
        else:
            prompts = [prompt] if isinstance(prompt, str) else list(prompt)
            count = len(prompts)
        if images != count and 1 not in (images, count):
            raise ValueError(f"{images} images and {count} prompts: give one of either, or as many of both.")
        if images > 1 and count == 1:
            if prompts is None:
                raise ValueError(f"prompt_embeds are of one prompt, for {images} images: repeat them.")
            prompts = prompts * images
        return prompts

    def _negatives(
        self, negative_prompt: str | list[str] | None, embeds: Tensor | None, count: int
    ) -> list[str] | Tensor:
        if negative_prompt is not None and embeds is not None:
            raise ValueError("negative_prompt and negative_prompt_embeds are both given: give one of them.")
        given: list[str] | Tensor | None = embeds
        if embeds is None:
            given = [negative_prompt or ""] if not isinstance(negative_prompt, list) else negative_prompt
        assert given is not None
        if len(given) not in (1, count):
            raise ValueError(f"{len(given)} negative prompts for {count} videos: give one, or one for each.")
        return given

    def _check(self, height: int, width: int, num_frames: int, output_type: str, tensors: Sequence[str]) -> None:
        multiple = self.vae_scale_factor * 2 ** (len(self.unet.config.channel_mult) - 1)
        if height % multiple or width % multiple or min(height, width) < multiple:
            near = [max(round(side / multiple), 1) * multiple for side in (height, width)]
            raise ValueError(
                f"height and width {height}x{width}: this network takes multiples of {multiple}, such as"
                f" {near[0]}x{near[1]}."
            )
        if not 1 <= num_frames <= self.unet.config.temporal_length:
            raise ValueError(
                f"num_frames {num_frames}: this network was trained on {self.unet.config.temporal_length} frames and"
                " has no more positions in time; give at most as many."
            )
        if output_type not in ("pil", "np", "pt", "latent"):
            raise ValueError(f"output_type {output_type!r} is unknown: give pil, np, pt or latent.")
        if unknown := set(tensors) - set(self._callback_tensor_inputs):
            raise ValueError(
                f"callback_on_step_end_tensor_inputs: {', '.join(sorted(unknown))} unknown; there are"
                f" {', '.join(self._callback_tensor_inputs)}."
            )

    def _frames_at_once(self, height: int, width: int) -> int:
        if self._execution_device.type == "cpu":
            return 1  # measured: several at once are slower by a quarter, and take their memory each
        return max(PIXELS_AT_ONCE // (height * width), 1)


@contextmanager
def _upcast(vae: Any) -> Iterator[Any]:
    """The VAE, in the body in float32 if its configuration says that float16 overflows."""
    needed = vae.dtype == torch.float16 and vae.config.force_upcast
    if needed:
        vae.to(torch.float32)
    try:
        yield vae
    finally:
        if needed:
            vae.to(torch.float16)
