"""The network of Animate-Anything: a text-to-video U-Net that is shown the photo, a motion mask and a motion strength.

Dai et al. 2023, "Fine-Grained Open Domain Image Animation with Motion Guidance" (arXiv 2311.12886). The latents of the
photo go in front of the noisy ones as one more frame, whose prediction is thrown away; the mask is one more channel.
"""

from collections.abc import Sequence

import torch
from diffusers import ModelMixin  # noqa: F401 - pipelines look for the loader of a foreign class in its own module
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import Timesteps
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel, UNet3DConditionOutput
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["AnimateAnythingUNet"]


class AnimateAnythingUNet(UNet3DConditionModel):
    """`UNet3DConditionModel` of diffusers, with a second input convolution for the mask and the strength in its time
    embedding. `motion_mask` and `motion_strength` say what a checkpoint was trained with."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 4,
        out_channels: int = 4,
        down_block_types: Sequence[str] = ("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",),
        up_block_types: Sequence[str] = ("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3,
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        downsample_padding: int = 1,
        mid_block_scale_factor: float = 1,
        act_fn: str = "silu",
        norm_num_groups: int | None = 32,
        norm_eps: float = 1e-5,
        cross_attention_dim: int = 1024,
        attention_head_dim: int | Sequence[int] = 64,
        num_attention_heads: None = None,  # of the base class, which writes it and the next into configurations
        time_cond_proj_dim: int | None = None,
        motion_mask: bool = False,
        motion_strength: bool = False,
    ) -> None:
        del motion_mask, motion_strength  # `forward` finds them in the configuration
        width = block_out_channels[0]
        super().__init__(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=down_block_types,
            up_block_types=up_block_types,
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            downsample_padding=downsample_padding,
            mid_block_scale_factor=mid_block_scale_factor,
            act_fn=act_fn,
            norm_num_groups=norm_num_groups,
            norm_eps=norm_eps,
            cross_attention_dim=cross_attention_dim,
            attention_head_dim=attention_head_dim,
            num_attention_heads=num_attention_heads,
            time_cond_proj_dim=time_cond_proj_dim or width,
        )
        self.conv_in2 = nn.Conv2d(in_channels + 1, width, kernel_size=3, padding=1)
        self.motion_proj = Timesteps(width, True, 0)

    def forward(
        self,
        sample: Float[Tensor, "b c f h w"],
        timestep: Tensor | float,
        encoder_hidden_states: Float[Tensor, "b n d"],
        condition_latent: Float[Tensor, "b c 1 h w"],
        mask: Float[Tensor, "m 1 1 h w"] | None = None,
        motion: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet3DConditionOutput | tuple[Float[Tensor, "b c f h w"]]:
        """The prediction for `sample`, given the photo's latents, a text, a mask and a strength.

        `mask`: 1 where things move, one for all or one for each of the last samples of the batch; without one, the
        network's other input convolution is used. `motion`: the strength, one for all or one each; None: not told.
        """
        sample = torch.cat([condition_latent, sample], dim=2)
        b, _, f, _, _ = sample.shape
        strength = (
            self.motion_proj(motion).to(sample.dtype) if self.config.motion_strength and motion is not None else None
        )
        times = torch.as_tensor(timestep, device=sample.device).expand(b)
        embedding = self.time_embedding(self.time_proj(times).to(sample.dtype), strength)
        embedding = repeat(embedding, "b d -> (b f) d", f=f)
        text = repeat(encoder_hidden_states, "b n d -> (b f) n d", f=f)

        convolution = self.conv_in
        if self.config.motion_mask and mask is not None:
            masks = repeat(mask.to(sample.dtype), "m 1 1 h w -> (t m) 1 f h w", t=b // mask.shape[0], f=f)
            sample, convolution = torch.cat([masks, sample], dim=1), self.conv_in2
        x = convolution(rearrange(sample, "b c f h w -> (b f) c h w"))
        x = self.transformer_in(x, num_frames=f, return_dict=False)[0]

        skips = (x,)
        for block in self.down_blocks:
            told = {"encoder_hidden_states": text} if _reads(block) else {}
            x, made = block(hidden_states=x, temb=embedding, num_frames=f, **told)
            skips += made
        x = self.mid_block(x, embedding, encoder_hidden_states=text, num_frames=f)
        for block in self.up_blocks:
            told = {"encoder_hidden_states": text} if _reads(block) else {}
            count = len(block.resnets)
            skips, taken = skips[:-count], skips[-count:]
            # Sizes that halve with a remainder have to come back as they went.
            size = skips[-1].shape[2:] if skips else None
            x = block(
                hidden_states=x,
                temb=embedding,
                res_hidden_states_tuple=taken,
                upsample_size=size,
                num_frames=f,
                **told,
            )
        if self.conv_norm_out is not None:
            x = self.conv_act(self.conv_norm_out(x))
        prediction = rearrange(self.conv_out(x), "(b f) c h w -> b c f h w", f=f)[:, :, 1:]
        return UNet3DConditionOutput(sample=prediction) if return_dict else (prediction,)


def _reads(block: nn.Module) -> bool:
    return bool(getattr(block, "has_cross_attention", False))
