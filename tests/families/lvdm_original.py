"""Original checkpoints of a few weights, made without our converter: OpenCLIP and the UNet are written down here."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

ARCH = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 28, "layers": 2, "width": 32, "head_width": 8, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 40, "width": 32, "heads": 4, "layers": 3},
}
DDCONFIG = {"resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1}
UNET: dict[str, Any] = {
    "in_channels": 8,
    "out_channels": 4,
    "model_channels": 32,
    "attention_resolutions": [1],
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "num_head_channels": 8,
    "transformer_depth": 1,
    "context_dim": 32,
    "use_linear": True,
    "temporal_conv": True,
    "temporal_attention": True,
    "use_relative_position": False,
    "temporal_length": 4,
    "addition_attention": True,
}
DYNAMICRAFTER = {"image_cross_attention": True, "fs_condition": True, "default_fs": 24}
VIDEOCRAFTER = {"in_channels": 4, "use_image_attention": True, "fps_cond": True}
RESAMPLER = {"dim": 32, "depth": 1, "dim_head": 8, "heads": 2, "num_queries": 16, "embedding_dim": 32, "output_dim": 32}


def params(family: str = "dynamicrafter", **unet: Any) -> dict[str, Any]:
    """An original configuration, as its YAML file has it."""
    own = DYNAMICRAFTER if family == "dynamicrafter" else VIDEOCRAFTER
    frames = {"video_length": 4} if family == "dynamicrafter" else {}
    return {
        "rescale_betas_zero_snr": family == "dynamicrafter",
        "parameterization": "v" if family == "dynamicrafter" else "eps",
        "linear_start": 0.00085,
        "linear_end": 0.012,
        "timesteps": 1000,
        "image_size": [8, 12],
        "scale_factor": 0.18215,
        "finegrained": True,
        "unet_config": {"params": {**UNET, **own, **unet}},
        "first_stage_config": {"params": {"embed_dim": 4, "ddconfig": DDCONFIG}},
        "cond_stage_config": {"params": {"arch": ARCH, "layer": "penultimate"}},
        "img_cond_stage_config": {"params": {"arch": ARCH}},
        "image_proj_stage_config": {"params": {**RESAMPLER, "ff_mult": 2, **frames}},
    }


class Block(nn.Module):
    """A residual attention block of OpenCLIP, under its names."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp["c_proj"](nn.functional.gelu(self.mlp["c_fc"](self.ln_2(x))))


def _blocks(width: int, heads: int, layers: int) -> nn.ModuleDict:
    return nn.ModuleDict({"resblocks": nn.ModuleList(Block(width, heads) for _ in range(layers))})


class Text(nn.Module):
    """OpenCLIP without its picture half; read as the original does, at the last layer but one."""

    def __init__(self) -> None:
        super().__init__()
        text = ARCH["text_cfg"]
        self.token_embedding = nn.Embedding(text["vocab_size"], text["width"])
        self.positional_embedding = nn.Parameter(torch.randn(text["context_length"], text["width"]))
        self.transformer = _blocks(text["width"], text["heads"], text["layers"])
        self.ln_final = nn.LayerNorm(text["width"])
        self.text_projection = nn.Parameter(torch.randn(text["width"], ARCH["embed_dim"]))
        self.logit_scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token_embedding(ids) + self.positional_embedding
        mask = torch.full((ids.shape[1],) * 2, -torch.inf).triu(1)
        for block in self.transformer["resblocks"][:-1]:
            x = block(x, mask)
        return self.ln_final(x)


class Vision(nn.Module):
    """OpenCLIP's picture half."""

    def __init__(self) -> None:
        super().__init__()
        vision = ARCH["vision_cfg"]
        width, patch = vision["width"], vision["patch_size"]
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn((vision["image_size"] // patch) ** 2 + 1, width))
        self.proj = nn.Parameter(torch.randn(width, ARCH["embed_dim"]))
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = _blocks(width, width // vision["head_width"], vision["layers"])

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Every patch before the last norm, and the pooled embedding."""
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        x = self.ln_pre(x)
        for block in self.transformer["resblocks"]:
            x = block(x)
        return x, self.ln_post(x[:, 0]) @ self.proj


def unet_shapes(params: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the original UNet, from its configuration; a second derivation, to hold ours against."""
    width, head, context = params["model_channels"], params["num_head_channels"], params["context_dim"]
    learnable = params.get("image_cross_attention_scale_learnable")
    shapes = dict[str, tuple[int, ...]]()

    def put(name: str, *weight: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = weight
        if bias:
            shapes[f"{name}.bias"] = weight[:1]

    def res(name: str, c: int, o: int) -> None:
        put(f"{name}.in_layers.0", c)
        put(f"{name}.in_layers.2", o, c, 3, 3)
        put(f"{name}.emb_layers.1", o, 4 * width)
        put(f"{name}.out_layers.0", o)
        put(f"{name}.out_layers.3", o, o, 3, 3)
        if c != o:
            put(f"{name}.skip_connection", o, c, 1, 1)
        for i in range(1, 5):
            put(f"{name}.temopral_conv.conv{i}.0", o)
            put(f"{name}.temopral_conv.conv{i}.{2 if i == 1 else 3}", o, o, 3, 1, 1)

    def transformer(name: str, c: int, heads: int, *, image: bool, conv: bool = False) -> None:
        inner = heads * head
        put(f"{name}.norm", c)
        put(f"{name}.proj_in", *((inner, c, 1) if conv else (inner, c)))
        put(f"{name}.proj_out", *((c, inner, 1) if conv else (c, inner)))
        block = f"{name}.transformer_blocks.0"
        for i in (1, 2, 3):
            put(f"{block}.norm{i}", inner)
        put(f"{block}.ff.net.0.proj", 8 * inner, inner)
        put(f"{block}.ff.net.2", inner, 4 * inner)
        for attn, read in (("attn1", inner), ("attn2", context if image else inner)):
            put(f"{block}.{attn}.to_q", inner, inner, bias=False)
            put(f"{block}.{attn}.to_out.0", inner, inner)
            for which in ("to_k", "to_v", *(("to_k_ip", "to_v_ip") if image and attn == "attn2" else ())):
                put(f"{block}.{attn}.{which}", inner, read, bias=False)
        if image and learnable:
            shapes[f"{block}.attn2.alpha"] = ()

    def both(name: str, first: int, c: int) -> None:
        transformer(f"{name}.{first}", c, c // head, image=True)
        transformer(f"{name}.{first + 1}", c, c // head, image=False)

    for embedding in ("time_embed", "fps_embedding"):
        put(f"{embedding}.0", 4 * width, width)
        put(f"{embedding}.2", 4 * width, 4 * width)
    put("input_blocks.0.0", width, params["in_channels"], 3, 3)
    transformer("init_attn.0", width, 8, image=False, conv=True)
    mults, count = params["channel_mult"], params["num_res_blocks"]
    c, skips, index = width, [width], 0
    for level, mult in enumerate(mults):
        for _ in range(count):
            index += 1
            res(f"input_blocks.{index}.0", c, mult * width)
            c = mult * width
            if 2**level in params["attention_resolutions"]:
                both(f"input_blocks.{index}", 1, c)
            skips.append(c)
        if level < len(mults) - 1:
            index += 1
            put(f"input_blocks.{index}.0.op", c, c, 3, 3)
            skips.append(c)
    res("middle_block.0", c, c)
    both("middle_block", 1, c)
    res("middle_block.3", c, c)
    index = 0
    for level, mult in reversed(list(enumerate(mults))):
        for i in range(count + 1):
            res(f"output_blocks.{index}.0", c + skips.pop(), mult * width)
            c, last = mult * width, 1
            if 2**level in params["attention_resolutions"]:
                both(f"output_blocks.{index}", 1, c)
                last = 3
            if level and i == count:
                put(f"output_blocks.{index}.{last}.conv", c, c, 3, 3)
            index += 1
    put("out.0", c)
    put("out.2", params["out_channels"], c, 3, 3)
    return shapes


def clips(seed: int = 0) -> tuple[Text, Vision]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Text().eval(), Vision().eval()


def leftovers() -> Iterator[tuple[str, Tensor]]:
    """What a checkpoint holds that no network needs: buffers of the schedule, the text half of the image embedder."""
    yield "betas", torch.linspace(0, 1, 1000)
    yield "scale_arr", torch.full((1400,), 0.7)
    yield "scale_factor", torch.tensor(0.18215)
    text, _ = clips(1)
    for name, tensor in text.state_dict().items():
        if not name.startswith("transformer."):
            yield f"embedder.model.{name}", tensor


def checkpoint(params: Mapping[str, Any], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """A whole original checkpoint of random weights."""
    generator = torch.Generator().manual_seed(0)

    def random(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.1

    unet, resampler = params["unet_config"]["params"], params["image_proj_stage_config"]["params"]
    state = {f"model.diffusion_model.{name}": random(shape) for name, shape in unet_shapes(unet).items()}
    dim, inner = resampler["dim"], resampler["heads"] * resampler["dim_head"]
    hidden = resampler["ff_mult"] * dim
    projection = {
        "latents": (1, resampler["num_queries"] * resampler.get("video_length", 1), dim),
        "proj_in.weight": (dim, resampler["embedding_dim"]),
        "proj_in.bias": (dim,),
        "proj_out.weight": (resampler["output_dim"], dim),
        "proj_out.bias": (resampler["output_dim"],),
        "layers.0.0.to_q.weight": (inner, dim),
        "layers.0.0.to_kv.weight": (2 * inner, dim),
        "layers.0.0.to_out.weight": (dim, inner),
        "layers.0.1.1.weight": (hidden, dim),
        "layers.0.1.3.weight": (dim, hidden),
    }
    for norm in ("norm_out", "layers.0.0.norm1", "layers.0.0.norm2", "layers.0.1.0"):
        projection |= {f"{norm}.weight": (dim,), f"{norm}.bias": (dim,)}
    state |= {f"image_proj_model.{name}": random(shape) for name, shape in projection.items()}
    state |= {f"first_stage_model.{name}": random(shape) for name, shape in vae_shapes().items()}
    text, vision = clips()
    state |= {f"cond_stage_model.model.{name}": tensor for name, tensor in text.state_dict().items()}
    state |= {f"embedder.model.visual.{name}": tensor for name, tensor in vision.state_dict().items()}
    state |= dict(leftovers())
    return {name: tensor.to(dtype) for name, tensor in state.items()}


def vae_shapes() -> dict[str, tuple[int, ...]]:
    """The original first stage of `DDCONFIG`: two levels of 32 channels."""
    shapes = dict[str, tuple[int, ...]]()

    def put(name: str, *weight: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = weight, weight[:1]

    def res(name: str) -> None:
        for i in (1, 2):
            put(f"{name}.norm{i}", 32)
            put(f"{name}.conv{i}", 32, 32, 3, 3)

    for half, blocks, sample in (("encoder", 1, "down.0.downsample"), ("decoder", 2, "up.1.upsample")):
        put(f"{half}.conv_in", 32, 3 if half == "encoder" else 4, 3, 3)
        put(f"{half}.norm_out", 32)
        put(f"{half}.conv_out", 8 if half == "encoder" else 3, 32, 3, 3)
        res(f"{half}.mid.block_1")
        res(f"{half}.mid.block_2")
        put(f"{half}.mid.attn_1.norm", 32)
        for which in ("q", "k", "v", "proj_out"):
            put(f"{half}.mid.attn_1.{which}", 32, 32, 1, 1)
        for level in (0, 1):
            for block in range(blocks):
                res(f"{half}.{sample.split('.')[0]}.{level}.block.{block}")
        put(f"{half}.{sample}.conv", 32, 32, 3, 3)
    put("quant_conv", 8, 8, 1, 1)
    put("post_quant_conv", 4, 4, 1, 1)
    return shapes
