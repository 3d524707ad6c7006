"""A faster forward of nano's denoiser for training on a CPU: the same weights, the same result, other kernels.

diffusers' `UNetSpatioTemporalConditionModel` spends most of a CPU's time on copies between layouts and on slow kernels
(group normalisation, 3-D convolutions, attention over 12 frames in bfloat16). Here every tensor is [b, f, h, w, c], a
convolution over time is one matrix product, attention is two, and `torch.compile` fuses what is left. Only networks
with one layer per block are covered, which is what nano is.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Weights = dict[str, Tensor]


class FastDenoiser:
    """Calls a `UNetSpatioTemporalConditionModel` of one layer per block.

    Gradients reach the parameters of `unet` itself. `dtype` is that of the products; normalisations are in float32.
    With `compiled`, blocks are compiled at their first call, which takes a minute or two for each new batch size.
    """

    def __init__(self, unet: Any, *, dtype: torch.dtype = torch.bfloat16, compiled: bool = True):
        if any(len(block.resnets) != 1 for block in unet.down_blocks):
            raise ValueError("FastDenoiser covers networks with one layer per block")
        self.unet, self.dtype = unet, dtype
        whole: dict[str, Any] = {"dynamic": False, "fullgraph": True}
        self._residual: Callable[..., Tensor] = torch.compile(residual, **whole) if compiled else residual
        self._attention: Callable[..., Tensor] = torch.compile(transformer, **whole) if compiled else transformer

    def __call__(
        self,
        x: Float[Tensor, "b f h w c"],
        timestep: Float[Tensor, " b"],
        context: Float[Tensor, "b e"],
        time_ids: Float[Tensor, "b 3"],
    ) -> tuple[Float[Tensor, "b f h w k"], tuple[Float[Tensor, "b f y x d"], Float[Tensor, "b f y x d"]]]:
        """Return the network's output, and the features after its last block down and after its middle block.

        `x` is the scaled noisy latents and the image's latents, `context` the one token of the image's embedding,
        `time_ids` are fps, motion bucket and augmentation noise.
        """
        u = self.unet
        added = u.add_embedding(u.add_time_proj(time_ids.flatten()).reshape(len(x), -1))
        embedding = F.silu(u.time_embedding(u.time_proj(timestep)) + added).to(self.dtype)
        context = context.to(self.dtype)
        x = _space(x.to(self.dtype), u.conv_in.weight, u.conv_in.bias)
        skips = [x]
        for block in u.down_blocks:
            x = self._layers(block, 0, x, embedding, context)
            skips.append(x)
            for down in block.downsamplers or []:
                x = _space(x, down.conv.weight, down.conv.bias, stride=2)
                skips.append(x)
        lowest, middle = x, u.mid_block
        x = self._resolve(middle.resnets[0], x, embedding)
        x = self._resolve(middle.resnets[1], self._transform(middle.attentions[0], x, context), embedding)
        central = x
        for block in u.up_blocks:
            for layer in range(len(block.resnets)):
                x = self._layers(block, layer, torch.cat([x, skips.pop()], -1), embedding, context)
            for up in block.upsamplers or []:
                x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
                x = _space(x, up.conv.weight, up.conv.bias)
        out = u.conv_norm_out
        x = F.silu(_grouped(x, out.weight, out.bias, out.eps, (2, 3))).to(self.dtype)
        return _space(x, u.conv_out.weight, u.conv_out.bias).float(), (lowest, central)

    def _layers(self, block: Any, layer: int, x: Tensor, embedding: Tensor, context: Tensor) -> Tensor:
        x = self._resolve(block.resnets[layer], x, embedding)
        return self._transform(block.attentions[layer], x, context) if hasattr(block, "attentions") else x

    def _resolve(self, block: Any, x: Tensor, embedding: Tensor) -> Tensor:
        epsilon = block.spatial_res_block.norm1.eps, block.temporal_res_block.norm1.eps
        return self._residual(x, embedding, _residual_weights(block), *epsilon)

    def _transform(self, block: Any, x: Tensor, context: Tensor) -> Tensor:
        frames = block.time_pos_embed(block.time_proj(torch.arange(x.shape[1])))
        return self._attention(x, context, frames, _transformer_weights(block), block.num_attention_heads)


def residual(
    x: Float[Tensor, "b f h w c"], embedding: Float[Tensor, "b e"], p: Weights, epsilon: float, time_epsilon: float
) -> Float[Tensor, "b f h w d"]:
    """Compute what diffusers' SpatioTemporalResBlock does with the weights `p`."""
    dtype = x.dtype
    h = F.silu(_grouped(x, p["s.norm1.w"], p["s.norm1.b"], epsilon, (2, 3))).to(dtype)
    h = _space(h, p["s.conv1.w"], p["s.conv1.b"])
    h = h + _linear(embedding, p["s.time_emb_proj.w"], p["s.time_emb_proj.b"])[:, None, None, None]
    h = F.silu(_grouped(h, p["s.norm2.w"], p["s.norm2.b"], epsilon, (2, 3))).to(dtype)
    h = _space(h, p["s.conv2.w"], p["s.conv2.b"])
    if "s.conv_shortcut.w" in p:
        x = _linear(x, p["s.conv_shortcut.w"][:, :, 0, 0], p["s.conv_shortcut.b"])
    x = x + h
    h = F.silu(_grouped(x, p["t.norm1.w"], p["t.norm1.b"], time_epsilon, (1, 2, 3))).to(dtype)
    h = _time(h, p["t.conv1.w"], p["t.conv1.b"])
    h = h + _linear(embedding, p["t.time_emb_proj.w"], p["t.time_emb_proj.b"])[:, None, None, None]
    h = F.silu(_grouped(h, p["t.norm2.w"], p["t.norm2.b"], time_epsilon, (1, 2, 3))).to(dtype)
    return x + (1 - torch.sigmoid(p["mix"]).to(dtype)) * _time(h, p["t.conv2.w"], p["t.conv2.b"])


def transformer(
    x: Float[Tensor, "b f h w c"],
    context: Float[Tensor, "b e"],
    frames: Float[Tensor, "f c"],
    p: Weights,
    heads: int,
) -> Float[Tensor, "b f h w c"]:
    """Compute what diffusers' TransformerSpatioTemporalModel does with the weights `p` and one token of context."""
    b, f, h, w, c = x.shape
    y = _grouped(x, p["norm.w"], p["norm.b"], 1e-6, (2, 3)).to(x.dtype)
    y = _linear(y, p["in.w"], p["in.b"]).reshape(b * f, h * w, c)
    y = y + _attend(_layer(y, p, "s.norm1"), p, "s.attn1", heads)
    y = y.reshape(b, f, h * w, c) + _cross(context, p, "s.attn2")[:, None, None]
    y = y + _feed(_layer(y, p, "s.norm3"), p, "s.ff")
    z = (y + frames.to(x.dtype)[:, None]).transpose(1, 2).reshape(b * h * w, f, c)
    z = z + _feed(_layer(z, p, "t.norm_in"), p, "t.ff_in")
    z = z + _attend(_layer(z, p, "t.norm1"), p, "t.attn1", heads)
    z = z.reshape(b, h * w, f, c) + _cross(context, p, "t.attn2")[:, None, None]
    z = z + _feed(_layer(z, p, "t.norm3"), p, "t.ff")
    z = z.reshape(b, h * w, f, c).transpose(1, 2)
    share = torch.sigmoid(p["mix"]).to(x.dtype)
    return x + _linear(share * y + (1 - share) * z, p["out.w"], p["out.b"]).reshape(x.shape)


def _grouped(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, over: tuple[int, ...]) -> Tensor:
    """Normalise 32 groups of the last dimension over `over` too; float32."""
    x = x.float()
    mean, square = (_over_group(moment.mean(over, keepdim=True)) for moment in (x, x.square()))
    scale = torch.rsqrt((square - mean.square()).clamp_min(0) + epsilon) * weight
    return x * scale + (bias - mean * scale)


def _over_group(x: Tensor) -> Tensor:
    """Replace each channel by the mean of its group of 32."""
    groups = x.reshape(*x.shape[:-1], 32, x.shape[-1] // 32)
    return groups.mean(-1, keepdim=True).expand_as(groups).reshape(x.shape)


def _layer(x: Tensor, p: Weights, name: str) -> Tensor:
    return F.layer_norm(x.float(), x.shape[-1:], p[f"{name}.w"], p[f"{name}.b"], 1e-5).to(x.dtype)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))


def _space(
    x: Float[Tensor, "b f h w c"], weight: Float[Tensor, "d c 3 3"], bias: Float[Tensor, " d"], stride: int = 1
) -> Tensor:
    b, f, h, w, c = x.shape
    kernel = weight.to(x.dtype).contiguous(memory_format=torch.channels_last)
    y = F.conv2d(x.reshape(b * f, h, w, c).permute(0, 3, 1, 2), kernel, bias.to(x.dtype), padding=1, stride=stride)
    return y.permute(0, 2, 3, 1).reshape(b, f, h // stride, w // stride, len(weight))


def _time(x: Float[Tensor, "b f h w c"], weight: Float[Tensor, "d c 3 1 1"], bias: Float[Tensor, " d"]) -> Tensor:
    f = x.shape[1]
    padded = F.pad(x, (0, 0, 0, 0, 0, 0, 1, 1))
    neighbours = torch.cat([padded[:, :f], padded[:, 1 : f + 1], padded[:, 2:]], -1)
    return _linear(neighbours, weight[..., 0, 0].permute(0, 2, 1).reshape(len(weight), -1), bias)


def _attend(x: Float[Tensor, "n s c"], p: Weights, name: str, heads: int) -> Float[Tensor, "n s c"]:
    n, s, c = x.shape
    width = c // heads
    projections = torch.cat([p[f"{name}.to_q.w"], p[f"{name}.to_k.w"], p[f"{name}.to_v.w"]])
    parts = _linear(x, projections).reshape(n, s, 3, heads, width).permute(2, 0, 3, 1, 4)
    query, key, value = parts.reshape(3, n * heads, s, width).unbind(0)
    scores = torch.bmm(query, key.transpose(1, 2)).float() * width**-0.5
    mixed = torch.bmm(scores.softmax(-1).to(x.dtype), value)
    return _linear(mixed.reshape(n, heads, s, width).transpose(1, 2).reshape(n, s, c), *_out(p, name))


def _cross(context: Float[Tensor, "b e"], p: Weights, name: str) -> Float[Tensor, "b c"]:
    """Attend to the only token there is: the result is its value."""
    return _linear(_linear(context, p[f"{name}.to_v.w"]), *_out(p, name))


def _out(p: Weights, name: str) -> tuple[Tensor, Tensor]:
    return p[f"{name}.to_out.w"], p[f"{name}.to_out.b"]


def _feed(x: Tensor, p: Weights, name: str) -> Tensor:
    value, gate = _linear(x, p[f"{name}.0.w"], p[f"{name}.0.b"]).chunk(2, -1)
    return _linear((value.float() * F.gelu(gate.float())).to(x.dtype), p[f"{name}.2.w"], p[f"{name}.2.b"])


def _residual_weights(block: Any) -> Weights:
    p: Weights = {"mix": block.time_mixer.mix_factor}
    for kind, part in (("s", block.spatial_res_block), ("t", block.temporal_res_block)):
        for name in ("norm1", "conv1", "time_emb_proj", "norm2", "conv2", "conv_shortcut"):
            if (layer := getattr(part, name)) is not None:
                p[f"{kind}.{name}.w"], p[f"{kind}.{name}.b"] = layer.weight, layer.bias
    return p


def _transformer_weights(block: Any) -> Weights:
    p: Weights = {"mix": block.time_mixer.mix_factor}
    layers = {"norm": block.norm, "in": block.proj_in, "out": block.proj_out}
    for kind, part in (("s", block.transformer_blocks[0]), ("t", block.temporal_transformer_blocks[0])):
        layers |= {f"{kind}.{name}": getattr(part, name) for name in ("norm1", "norm3")}
        layers |= {f"{kind}.{name}.to_out": getattr(part, name).to_out[0] for name in ("attn1", "attn2")}
        layers |= {f"{kind}.ff.0": part.ff.net[0].proj, f"{kind}.ff.2": part.ff.net[2]}
        for name, kept in (("attn1", ("to_q", "to_k", "to_v")), ("attn2", ("to_v",))):
            p |= {f"{kind}.{name}.{which}.w": getattr(getattr(part, name), which).weight for which in kept}
    part = block.temporal_transformer_blocks[0]
    layers |= {"t.norm_in": part.norm_in, "t.ff_in.0": part.ff_in.net[0].proj, "t.ff_in.2": part.ff_in.net[2]}
    for name, layer in layers.items():
        p[f"{name}.w"], p[f"{name}.b"] = layer.weight, layer.bias
    return p
