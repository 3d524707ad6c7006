"""Stable Video Diffusion at its published size: Stability AI's own code against what unleak runs, part by part.

    python -m benchmarks.svd_original CLONE [--parts unet,vae,image] [--frames 14] [--latent 24x16]

CLONE is a clone of github.com/Stability-AI/generative-models. The image encoder needs `kornia` and `open_clip_torch` as
well. No weights are downloaded: both codes get the same random ones, in float32, on the CPU. Each row has the relative
error (L2 norm) between the two outputs:

- unet: one call of the denoiser; `as published` is diffusers' network as it is, `one epsilon` the same network with the
  epsilon of Stability's group normalisations in every residual block.
- vae: the moments of one frame, and the decoded frames.
- image: the pixels that the image encoder sees (resized to 224 and normalised), its embedding of the same pixels, and
  the embedding of a photo from end to end.

Rows are written to `benchmarks/results/svd_original.json` as they come; those of a part that runs again are replaced.
The UNet takes 7 GB of memory and a few minutes.
"""

import argparse
import importlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.full_size import IMAGE_VAE, VISION, filled, shapes_of

RESULTS = Path(__file__).parent / "results/svd_original.json"
PHOTO = Path(__file__).parents[1] / "examples/photo.jpg"
DENOISER: Mapping[str, Any] = {
    "in_channels": 8, "model_channels": 320, "out_channels": 4, "num_res_blocks": 2, "channel_mult": [1, 2, 4, 4],
    "attention_resolutions": [4, 2, 1], "num_head_channels": 64, "use_linear_in_transformer": True,
    "transformer_depth": 1, "context_dim": 1024, "spatial_transformer_attn_type": "softmax",
    "extra_ff_mix_layer": True, "use_spatial_context": True, "merge_strategy": "learned_with_images",
    "video_kernel_size": [3, 1, 1], "adm_in_channels": 768, "num_classes": "sequential",
}  # fmt: skip
"""Stability's scripts/sampling/configs/svd.yaml, with PyTorch's attention in place of xformers'."""
CODER: Mapping[str, Any] = {
    "attn_type": "vanilla", "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3,
    "ch": 128, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip
MEAN, SPREAD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the pixels that CLIP was trained on."""


def stability(clone: Path, name: str) -> Any:
    """Import one module of Stability's package without the training code that the package imports first."""
    for package in ("sgm", "sgm.modules", "sgm.modules.diffusionmodules", "sgm.modules.autoencoding"):
        bare = ModuleType(package)
        bare.__path__ = [str(clone / package.replace(".", "/"))]
        sys.modules.setdefault(package, bare)
    return importlib.import_module(f"sgm.modules.{name}")


def built(cls: Any, state: Mapping[str, Tensor], **config: Any) -> nn.Module:
    """Build a network of Stability's on the tensors of `state`, which it shares; every name must fit."""
    with torch.device("meta"):
        network = cls(**config)
    shapes = shapes_of(network)
    network.load_state_dict({name: tensor.reshape(shapes[name]) for name, tensor in state.items()}, assign=True)
    return network.eval()


def off(ours: Tensor, theirs: Tensor) -> float:
    """Return the relative error in the L2 norm."""
    return float(f"{((ours - theirs).norm() / theirs.norm()).item():.2e}")


# Names of diffusers as names of Stability's

RESIDUAL = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
OUTSIDE = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}  # fmt: skip


def replaced(name: str, table: Mapping[str, str]) -> str:
    """Rename the parts of a name, whole parts only."""
    for old, new in table.items():
        name = re.sub(rf"(^|\.){re.escape(old)}(?=\.|$)", rf"\g<1>{new}", name)
    return name


def residual(name: str) -> str:
    """Rename inside a residual block over space and time."""
    return replaced(name.replace("spatial_res_block.", "").replace("temporal_res_block", "time_stack"), RESIDUAL)


def in_denoiser(name: str) -> str:
    """Return Stability's name of a parameter of diffusers' UNet of two layers per block."""
    place = re.match(r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.", name)
    if place is None:
        head = next(key for key in OUTSIDE if name.startswith(f"{key}."))
        start, rest = OUTSIDE[head], name.removeprefix(f"{head}.")
    else:
        level, kind, layer = int(place[2]), place[3], int(place[4])
        rest = name[place.end() :]
        if place[1] == "down":
            at = 3 * (level + 1) if kind == "downsamplers" else 1 + 3 * level + layer
            start = f"input_blocks.{at}.{int(kind == 'attentions')}"
            rest = rest.replace("conv.", "op.") if kind == "downsamplers" else rest
        else:
            at = 3 * level + (2 if kind == "upsamplers" else layer)
            start = f"output_blocks.{at}.{ {'resnets': 0, 'attentions': 1, 'upsamplers': 2 if level else 1}[kind] }"
    if "res_block." in rest or ("time_mixer" in rest and "resnets" in name):
        return f"{start}.{residual(rest)}"
    positions = {"time_pos_embed.linear_1": "time_pos_embed.0", "time_pos_embed.linear_2": "time_pos_embed.2"}
    return f"{start}.{replaced(rest, {'temporal_transformer_blocks': 'time_stack', **positions})}"


def in_coder(name: str) -> str:
    """Return Stability's name of a parameter of diffusers' encoder or temporal decoder."""
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    outside = {"conv_norm_out": "norm_out", "time_conv_out": "conv_out.time_mix_conv"}
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda at: f"up.{3 - int(at[1])}.block.{at[2]}", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda at: f"up.{3 - int(at[1])}.upsample", name)
    name = name.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
    if "mid_block.attentions.0" in name:
        return replaced(name.replace("mid_block.attentions.0", "mid.attn_1"), attention)
    if "temporal_res_block." in name:
        return residual(name)
    name = name.replace("spatial_res_block.", "").replace("time_mixer.mix_factor", "mix_factor")
    return replaced(name, {"conv_shortcut": "nin_shortcut", **outside})


def in_tower(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the parameters of transformers' CLIP image encoder as those of OpenCLIP's."""
    names = {
        "embeddings.class_embedding": "class_embedding", "embeddings.patch_embedding.weight": "conv1.weight",
        "embeddings.position_embedding.weight": "positional_embedding", "pre_layrnorm": "ln_pre",
        "post_layernorm": "ln_post", "encoder.layers": "transformer.resblocks", "layer_norm1": "ln_1",
        "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "self_attn.out_proj": "attn.out_proj",
    }  # fmt: skip
    made, parts = dict[str, Tensor](), dict[str, list[Tensor]]()
    for name, tensor in state.items():
        short = name.removeprefix("vision_model.")
        if (found := re.fullmatch(r"(.*)\.self_attn\.([qkv])_proj\.(weight|bias)", short)) is not None:
            place = replaced(found[1], names)
            parts.setdefault(f"{place}.attn.in_proj_{found[3]}", [tensor] * 3)["qkv".index(found[2])] = tensor
        elif short == "visual_projection.weight":
            made["proj"] = tensor.T.contiguous()
        elif not short.endswith("position_ids"):
            made[replaced(short, names)] = tensor
    return made | {name: torch.cat(three) for name, three in parts.items()}


# The three parts


def unet(clone: Path, frames: int, height: int, width: int) -> Iterator[dict[str, Any]]:
    """Yield the error of one call of the denoiser, as diffusers has it and with one epsilon throughout."""
    from diffusers import UNetSpatioTemporalConditionModel

    from unleak.families.svd.convert import UNET

    module = stability(clone, "diffusionmodules.video_model")
    embedded = stability(clone, "diffusionmodules.util").timestep_embedding
    ours = filled(UNetSpatioTemporalConditionModel, UNET, torch.float32)
    for name, factor in ours.named_parameters():
        if name.endswith("mix_factor"):
            factor.data.fill_(0.5)
    theirs = built(
        module.VideoUNet, {in_denoiser(name): value for name, value in ours.state_dict().items()}, **DENOISER
    )
    draw = torch.Generator().manual_seed(1)
    sample = torch.randn(1, frames, 8, height, width, generator=draw)
    context, time = torch.randn(1, 1, 1024, generator=draw), torch.tensor([1.2])
    ids = torch.tensor([[6.0, 127.0, 0.02]])
    vector = embedded(ids[0], 256).reshape(1, -1).repeat(frames, 1)
    expected = theirs(
        sample[0], time.repeat(frames), context=context.repeat(frames, 1, 1), y=vector, num_video_frames=frames,
        image_only_indicator=torch.zeros(1, frames),
    )[None]  # fmt: skip
    shape = {"part": "unet", "parameters": sum(value.numel() for value in ours.parameters())}
    shape |= {"video": f"{frames} frames of {8 * width}x{8 * height}"}
    found = ours(sample, time, context, ids).sample
    yield shape | {"what": "as published", "relative_error": off(found, expected)}
    changed = 0
    for name, layer in ours.named_modules():
        if isinstance(layer, nn.GroupNorm) and "res_block" in name and layer.eps != 1e-5:
            layer.eps, changed = 1e-5, changed + 1
    found = ours(sample, time, context, ids).sample
    yield shape | {"what": "one epsilon", "changed_norms": changed, "relative_error": off(found, expected)}


def vae(clone: Path, frames: int, height: int, width: int) -> Iterator[dict[str, Any]]:
    """Yield the errors of encoding one frame and of decoding a clip."""
    from diffusers import AutoencoderKLTemporalDecoder

    ours = filled(AutoencoderKLTemporalDecoder, IMAGE_VAE, torch.float32)
    parts: dict[str, dict[str, Tensor]] = {"encoder": {}, "decoder": {}, "quant_conv": {}}
    for name, tensor in ours.state_dict().items():
        part, _, rest = name.partition(".")
        parts[part][in_coder(rest)] = tensor
    encoder = built(stability(clone, "diffusionmodules.model").Encoder, parts["encoder"], **CODER)
    decoding = stability(clone, "autoencoding.temporal_ae").VideoDecoder
    decoder = built(decoding, parts["decoder"], video_kernel_size=[3, 1, 1], **CODER)
    draw = torch.Generator().manual_seed(2)
    image = torch.rand(1, 3, 8 * height, 8 * width, generator=draw) * 2 - 1
    latents = torch.randn(frames, 4, height, width, generator=draw)
    shape = {"part": "vae", "parameters": sum(value.numel() for value in ours.parameters())}
    shape |= {"video": f"{frames} frames of {8 * width}x{8 * height}"}
    moments = ours.encode(image).latent_dist.parameters
    yield shape | {"what": "moments", "relative_error": off(moments, ours.quant_conv(encoder(image)))}
    video = ours.decode(latents, num_frames=frames).sample
    yield shape | {"what": "frames", "relative_error": off(video, decoder(latents, timesteps=frames))}


def image(*_: Any) -> Iterator[dict[str, Any]]:
    """Yield the errors of what the image encoder sees and of what it makes of it."""
    import kornia
    import open_clip
    from diffusers import StableVideoDiffusionPipeline
    from diffusers.pipelines.stable_video_diffusion import pipeline_stable_video_diffusion as port
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    ours = filled(CLIPVisionModelWithProjection, CLIPVisionConfig(**VISION), torch.float32)
    size = {"image_size": 224, "layers": 32, "width": 1280, "head_width": 80, "patch_size": 14}
    with torch.device("meta"):
        theirs = open_clip.model._build_vision_tower(1024, open_clip.CLIPVisionCfg(**size))
    theirs.load_state_dict(in_tower(ours.state_dict()), assign=True)
    theirs.eval()
    shape = {"part": "image", "parameters": sum(value.numel() for value in ours.parameters())}
    for width, height in ((1024, 576), (512, 320)):
        photo = Image.open(PHOTO).convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
        pixels = torch.from_numpy(np.asarray(photo).copy()).permute(2, 0, 1)[None] / 255 * 2 - 1
        expected = kornia.geometry.resize(
            pixels, (224, 224), interpolation="bicubic", align_corners=True, antialias=True
        )
        expected = kornia.enhance.normalize((expected + 1) / 2, torch.tensor(MEAN), torch.tensor(SPREAD))
        seen = (port._resize_with_antialiasing(pixels, (224, 224)) + 1) / 2
        told = {"do_center_crop": False, "do_resize": False, "do_rescale": False, "return_tensors": "pt"}
        seen = CLIPImageProcessor()(images=seen, do_normalize=True, **told).pixel_values
        whole = StableVideoDiffusionPipeline._encode_image(_Parts(ours), photo, torch.device("cpu"), 1, False)[:, 0]
        embedding = theirs(expected)
        one = shape | {"video": f"photo of {width}x{height}"}
        yield one | {"what": "pixels", "relative_error": off(seen, expected)}
        yield one | {"what": "embedding", "relative_error": off(ours(expected).image_embeds, embedding)}
        yield one | {"what": "end to end", "relative_error": off(whole, embedding)}


class _Parts:
    """What `_encode_image` of the pipeline asks for."""

    def __init__(self, image_encoder: nn.Module):
        from diffusers.video_processor import VideoProcessor
        from transformers import CLIPImageProcessor

        self.image_encoder, self.feature_extractor = image_encoder, CLIPImageProcessor()
        self.video_processor = VideoProcessor(do_resize=True, vae_scale_factor=8)


PARTS = {"unet": unet, "vae": vae, "image": image}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--frames", type=int, default=14)
    parser.add_argument("--latent", default="24x16", metavar="WxH")
    given = parser.parse_args()
    width, height = map(int, given.latent.split("x"))
    for part in given.parts.split(","):
        rows = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else []
        rows = [row for row in rows if row["part"] != part]
        for row in PARTS[part](given.clone, given.frames, height, width):
            rows.append(row)
            RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
            print(row, flush=True)


if __name__ == "__main__":
    main()
