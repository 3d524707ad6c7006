"""The video UNet of DynamiCrafter and VideoCrafter1: a latent image UNet whose every block also works along time."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.embeddings import TimestepEmbedding, get_timestep_embedding
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_3d_condition import UNet3DConditionOutput
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from unleak.families.lvdm.attention import Tokens
from unleak.families.lvdm.blocks import (
    Condition,
    Convolution,
    NormedConv,
    ResBlock,
    SpatialTransformer,
    TemporalTransformer,
)

FIRST_ATTENTION_HEADS = 8


class LVDMUNet(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """Predicts from noisy latents, with which the image's latents may be concatenated, a time, tokens and a frame rate.

    Args:
        in_channels: of the noisy latents and whatever is concatenated with them.
        out_channels: of the prediction.
        model_channels: channels at full resolution.
        channel_mult: channels of each level as multiples of that; every level halves the resolution.
        num_res_blocks: blocks of a level on the way down; one more on the way up.
        attention_resolutions: downsampling factors (1, 2, 4, ...) of the levels that have attention.
        attention_head_dim: channels of an attention head.
        transformer_depth: blocks of each spatial transformer.
        temporal_transformer_depth: blocks of each temporal transformer.
        cross_attention_dim: channels of the tokens.
        text_tokens: how many of the tokens are text.
        image_tokens: image tokens of a clip, or of a frame if `image_tokens_per_frame`.
        image_tokens_per_frame: whether every frame may have image tokens of its own (DynamiCrafter).
        image_cross_attention: whether there is attention to image tokens.
        learnable_image_scale: whether what they give is weighted by 1 + tanh of a parameter (DynamiCrafter 256).
        temporal_conv: whether blocks convolve over time.
        temporal_attention: whether there is attention along time beside that over space.
        first_temporal_attention: whether there is one more right after the first convolution.
        fps_condition: whether the frame rate, or the frame stride, is embedded.
        default_fps: what it is if not given.
        temporal_length: frames of the clips that the network was trained on.
        dropout: in training, before the second convolution of each block.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ("ResBlock", "SpatialTransformer", "TemporalTransformer")
    _repeated_blocks = ("ResBlock", "TransformerBlock")
    memory_format = torch.channels_last
    """Of the frames inside: see `blocks`."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        in_channels: int = 8,
        out_channels: int = 4,
        model_channels: int = 320,
        channel_mult: Sequence[int] = (1, 2, 4, 4),
        num_res_blocks: int = 2,
        attention_resolutions: Sequence[int] = (4, 2, 1),
        attention_head_dim: int = 64,
        transformer_depth: int = 1,
        temporal_transformer_depth: int = 1,
        cross_attention_dim: int = 1024,
        text_tokens: int = 77,  # noqa: ARG002
        image_tokens: int = 16,  # noqa: ARG002
        image_tokens_per_frame: bool = True,  # noqa: ARG002
        image_cross_attention: bool = True,
        learnable_image_scale: bool = False,
        temporal_conv: bool = True,
        temporal_attention: bool = True,
        first_temporal_attention: bool = True,
        fps_condition: bool = True,
        default_fps: int = 24,  # noqa: ARG002
        temporal_length: int = 16,  # noqa: ARG002
        dropout: float = 0.0,
    ):
        super().__init__()
        embedding, head = 4 * model_channels, attention_head_dim
        self.time_embed = TimestepEmbedding(model_channels, embedding)
        self.fps_embed = TimestepEmbedding(model_channels, embedding) if fps_condition else None

        def block(channels: int, out: int) -> ResBlock:
            return ResBlock(channels, out, embedding, dropout=dropout, temporal=temporal_conv)

        def attention(channels: int) -> list[nn.Module]:
            spatial = SpatialTransformer(
                channels,
                channels // head,
                head,
                transformer_depth,
                context_dim=cross_attention_dim,
                image=image_cross_attention,
                learnable_image_scale=learnable_image_scale,
            )
            if not temporal_attention:
                return [spatial]
            return [spatial, TemporalTransformer(channels, channels // head, head, temporal_transformer_depth)]

        self.first_attention = (
            TemporalTransformer(model_channels, FIRST_ATTENTION_HEADS, head, transformer_depth)
            if first_temporal_attention
            else None
        )
        # As in the original, a block is a list of layers: convolution, attention, change of resolution.
        self.input_blocks = nn.ModuleList([nn.ModuleList([Convolution(in_channels, model_channels)])])
        self.output_blocks = nn.ModuleList()
        channels, skips = model_channels, [model_channels]
        last = len(channel_mult) - 1
        for level, multiple in enumerate(channel_mult):
            attended = attention if 2**level in attention_resolutions else _none
            for _ in range(num_res_blocks):
                layers = [block(channels, multiple * model_channels)]
                channels = multiple * model_channels
                self.input_blocks.append(nn.ModuleList([*layers, *attended(channels)]))
                skips.append(channels)
            if level < last:
                self.input_blocks.append(nn.ModuleList([Convolution(channels, channels, stride=2)]))
                skips.append(channels)
        self.middle_block = nn.ModuleList([block(channels, channels), *attention(channels), block(channels, channels)])
        for level, multiple in reversed(list(enumerate(channel_mult))):
            attended = attention if 2**level in attention_resolutions else _none
            for i in range(num_res_blocks + 1):
                layers = [block(channels + skips.pop(), multiple * model_channels)]
                channels = multiple * model_channels
                rise = [Convolution(channels, channels, upsample=True)] if level and i == num_res_blocks else []
                self.output_blocks.append(nn.ModuleList([*layers, *attended(channels), *rise]))
        self.out = NormedConv(channels, nn.Conv2d(channels, out_channels, 3, padding=1))
        self.gradient_checkpointing = False

    def forward(
        self,
        sample: Float[Tensor, "b c f h w"],
        timestep: Float[Tensor, " b"] | Tensor | float | int,
        encoder_hidden_states: Float[Tensor, "b l d"],
        fps: Tensor | int | None = None,
        return_dict: bool = True,
    ) -> UNet3DConditionOutput | tuple[Float[Tensor, "b k f h w"]]:
        """The prediction (eps or v, as trained).

        `timestep` is an index of the training schedule, one or one for each clip. `encoder_hidden_states` are the text
        tokens, then the image tokens: of the clip, or of its frames one after the other. `fps` is the frame rate in Hz
        or, for DynamiCrafter 256, the frame stride; None: the configured one. Raises ValueError for a size that the
        levels do not divide and for a number of tokens that fits neither.
        """
        frames = sample.shape[2]
        self._check(sample)
        condition = Condition(
            self._embedding(sample, timestep, fps),
            self._tokens(encoder_hidden_states.to(sample.dtype), frames),
        )
        x = rearrange(sample, "b c f h w -> (b f) c h w").contiguous(memory_format=self.memory_format)
        skips = []
        for i, layers in enumerate(self.input_blocks):
            x = self._run(layers, x, condition)
            if i == 0 and self.first_attention is not None:
                x = self._run([self.first_attention], x, condition)
            skips.append(x)
        x = self._run(self.middle_block, x, condition)
        for layers in self.output_blocks:
            x = self._run(layers, torch.cat([x, skips.pop()], dim=1), condition)
        out = rearrange(self.out(x), "(b f) c h w -> b c f h w", f=frames)
        return UNet3DConditionOutput(sample=out) if return_dict else (out,)

    def _run(self, layers: Any, x: Tensor, condition: Condition) -> Tensor:
        for layer in layers:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                x = self._gradient_checkpointing_func(layer, x, condition)
            else:
                x = layer(x, condition)
        return x

    def _check(self, sample: Tensor) -> None:
        height, width = sample.shape[-2:]
        factor = 2 ** (len(self.config.channel_mult) - 1)
        if height % factor or width % factor:
            raise ValueError(f"latents of {height}x{width}: this UNet halves them; give multiples of {factor}")

    def _embedding(self, sample: Tensor, timestep: Any, fps: Any) -> Float[Tensor, "b e"]:
        embedding = self.time_embed(self._sinusoids(sample, timestep))
        if self.fps_embed is None:
            return embedding
        return embedding + self.fps_embed(self._sinusoids(sample, self.config.default_fps if fps is None else fps))

    def _sinusoids(self, sample: Tensor, value: Any) -> Float[Tensor, "b e"]:
        """A number for each clip, written as cosines and sines; computed in float32."""
        values = torch.as_tensor(value, device=sample.device).expand(len(sample))
        channels = self.config.model_channels
        waves = get_timestep_embedding(values, channels, flip_sin_to_cos=True, downscale_freq_shift=0)
        return waves.to(sample.dtype)

    def _tokens(self, tokens: Float[Tensor, "b l d"], frames: int) -> Tokens:
        config = self.config
        text, image = tokens[:, : config.text_tokens], tokens[:, config.text_tokens :]
        if not config.image_cross_attention:
            return Tokens(frames, text)
        if image.shape[1] == config.image_tokens:
            return Tokens(frames, text, image)
        if not (config.image_tokens_per_frame and image.shape[1] == frames * config.image_tokens):
            per_frame = f" or {config.text_tokens} + {frames} x {config.image_tokens}"
            raise ValueError(
                f"{tokens.shape[1]} tokens for {frames} frames: this UNet takes {config.text_tokens} of text and "
                f"{config.image_tokens} of the image{per_frame if config.image_tokens_per_frame else ''}"
            )
        return Tokens(frames, text, rearrange(image, "b (f k) d -> (b f) k d", f=frames), per_frame=True)


def _none(channels: int) -> list[nn.Module]:
    """The attention of a level that has none."""
    del channels
    return []
