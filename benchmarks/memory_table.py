"""What memory the paper's five systems take, for each way to load them: the table of docs/memory.md.

    python -m benchmarks.memory_table [--models svd,pia]
    python -m benchmarks.memory_table --measured

The second form puts the estimate beside what `benchmarks.full_size` measured, for the same size, frames and dtype.

Nothing is downloaded and no weights are made: a folder of configurations, and of weight files that have headers and no
data, stands for each published model, and the estimator of `unleak doctor` reads it as it reads any other. Rows go to
`benchmarks/results/memory.json`, from which the documentation is filled; those of a model that is estimated again are
replaced. It takes a few minutes.
"""

import argparse
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from benchmarks import full_size
from unleak.animate.memory import BY_SPEED, estimate
from unleak.animate.settings import Settings
from unleak.zoo.hub import can_tile
from unleak.zoo.registry import ModelSpec, find_model

RESULTS = Path(__file__).parent / "results/memory.json"
MEASURED = RESULTS.with_name("memory_measured.json")
GB = 1e9


def lvdm(family: str, variant: str) -> dict[str, nn.Module]:
    """The networks of a DynamiCrafter or VideoCrafter1."""
    from unleak.cli.convert import _family
    from unleak.families.lvdm.folder import components

    spec = _family(family)
    return components(spec, spec.variants[variant])


def svd() -> dict[str, nn.Module]:
    """The networks of Stable Video Diffusion."""
    from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from unleak.families.svd.convert import UNET

    return {
        "unet": UNetSpatioTemporalConditionModel(**UNET),
        "vae": AutoencoderKLTemporalDecoder(**full_size.IMAGE_VAE),
        "image_encoder": CLIPVisionModelWithProjection(CLIPVisionConfig(**full_size.VISION)),
    }


def image_parts(text: Mapping[str, Any], side: int) -> dict[str, nn.Module]:
    """The VAE and the text encoder of a Stable Diffusion that was trained on pictures of `side` pixels."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel

    up = {"up_block_types": ("UpDecoderBlock2D",) * 4}
    return {
        "vae": AutoencoderKL(**full_size.IMAGE_VAE, **up, sample_size=side),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**full_size.WORDS, **text)),
    }


def animate_anything() -> dict[str, nn.Module]:
    """The networks of Animate-Anything."""
    from unleak.families.animate_anything.unet import AnimateAnythingUNet

    return {"unet": AnimateAnythingUNet(motion_mask=True, motion_strength=True), **image_parts(full_size.CLIP_H, 768)}


def pia() -> dict[str, nn.Module]:
    """The networks of PIA on Stable Diffusion 1.5, put together."""
    from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel

    image = UNet2DConditionModel(**full_size.SD15)
    adapter = MotionAdapter(use_motion_mid_block=False, conv_in_channels=9)
    return {
        "unet": UNetMotionModel.from_unet2d(image, adapter, load_weights=False),
        **image_parts(full_size.CLIP_L, 512),
    }


MODELS: Mapping[str, Callable[[], dict[str, nn.Module]]] = {
    "dynamicrafter-512": lambda: lvdm("dynamicrafter", "512"),
    "dynamicrafter-1024": lambda: lvdm("dynamicrafter", "1024"),
    "videocrafter1-512": lambda: lvdm("videocrafter1", "512"),
    "svd": svd,
    "animate-anything": animate_anything,
    "pia": pia,
}
"""Models by their names, and their networks."""


def write_folder(parts: Mapping[str, nn.Module], pipeline: str, folder: Path) -> None:
    """Write a pipeline's folder whose weight files have their headers, and holes in place of data."""
    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": "0.0.0"}
    for name, network in parts.items():
        index[name] = [type(network).__module__.partition(".")[0], type(network).__name__]
        place = folder / name
        place.mkdir(parents=True)
        config: Any = network.config
        values = dict(config) if isinstance(config, Mapping) else config.to_dict()
        (place / "config.json").write_text(json.dumps({**values, "_class_name": type(network).__name__}, default=str))
        header, end = dict[str, Any](), 0
        for key, tensor in network.state_dict().items():
            begin, end = end, end + 2 * tensor.numel()
            header[key] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [begin, end]}
        text = json.dumps(header).encode()
        with (place / "diffusion_pytorch_model.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + end)
    (folder / "model_index.json").write_text(json.dumps(index))


@contextmanager
def stand_in(model: str) -> Iterator[ModelSpec]:
    """Give a published model whose files are a temporary folder without data."""
    published = find_model(model)
    with TemporaryDirectory() as place:
        with torch.device("meta"):
            parts = MODELS[model]()
        write_folder(parts, published.pipeline, Path(place))
        yield replace(published, source=place, convert=None, part=None, base=None, revision=None, files=())


def rows(model: str) -> Iterator[dict[str, Any]]:
    """Yield a dictionary for each way to load a model: its options and the most GB on the accelerator."""
    with stand_in(model) as spec:
        settings = Settings.for_model(spec)
        dtype = getattr(torch, spec.dtype)
        for tiling in (False, True) if can_tile(spec) else (False,):
            made = estimate(spec, settings, dtype, vae_tiling=tiling)
            for way in BY_SPEED:
                options = [f"--offload {way}"] * (way != "none") + ["--vae-tiling"] * tiling
                yield {
                    "model": model,
                    "size": f"{settings.width}x{settings.height}",
                    "frames": settings.num_frames,
                    "dtype": spec.dtype,
                    "options": " ".join(options),
                    "weights_gb": round(sum(made.weights.values()) / GB, 2),
                    "denoising_gb": round(made.denoising / GB, 2),
                    "decoding_gb": round(made.decoding / GB, 2),
                    "peak_gb": round(made.peak(way) / GB, 2),
                }


def beside_measured() -> Iterator[dict[str, Any]]:
    """Yield the estimate and the measured peak of every whole run of `benchmarks.full_size`, in GB.

    The runs were on a CPU, so the libraries of an accelerator are left out of the estimate.
    """
    for run in json.loads(full_size.RESULTS.read_text(encoding="utf-8")):
        if run["stage"] != "generate":
            continue
        model = next(name for name in MODELS if name in (run["system"], f"{run['system']}-512"))
        width, height = map(int, run["size"].split("x"))
        with stand_in(model) as spec:
            settings = Settings.for_model(spec, width=width, height=height, num_frames=full_size.FRAMES)
            made = estimate(spec, settings, getattr(torch, run["dtype"]))
        yield {
            "model": model,
            "size": run["size"],
            "frames": full_size.FRAMES,
            "dtype": run["dtype"],
            "weights_gb": round(sum(made.weights.values()) / GB, 2),
            "estimated_gb": round((sum(made.weights.values()) + max(made.denoising, made.decoding)) / GB, 2),
            "measured_gb": run["peak_gb"],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--measured", action="store_true", help="Compare with full_size.json instead.")
    given = parser.parse_args()
    if given.measured:
        table = list(beside_measured())
        MEASURED.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
        print(*table, sep="\n")
        return
    for model in given.models.split(","):
        found = list(rows(model))
        others = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else []
        table = [one for one in others if one["model"] != model] + found
        table.sort(key=lambda one: [*MODELS].index(one["model"]))
        RESULTS.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
        for one in found:
            print(one, flush=True)


if __name__ == "__main__":
    main()
