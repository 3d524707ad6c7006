"""The five systems of the paper at their published size, from checkpoint file to video, as a user goes through them.

    python -m benchmarks.full_size FOLDER [--systems svd,pia] [--tokenizer FILE] [--dtype bfloat16] [--size 512x320]

No weights are downloaded: files of the published form, names, shapes and precision are written with random weights.
Then every stage is a command in a process of its own: `unleak convert`, `unleak doctor`, and `unleak generate` of
2 steps and 16 frames on the CPU. A stage has a row: wall time, peak resident memory (with the pages of
the files that it maps) and its peak private memory, sampled ten times a second. Rows are written to
`benchmarks/results/full_size.json` as they come; those of a system that runs again are replaced. FOLDER needs 30 GB of
free disk, the machine 13 GB of free memory. DynamiCrafter and VideoCrafter1 need CLIP's vocabulary: install
open_clip_torch, or give its merges file with --tokenizer.
"""

import argparse
import inspect
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

RESULTS = Path(__file__).parent / "results/full_size.json"
GB = 1e9
FRAMES = 16
CALL = ("--num-frames", str(FRAMES), "--steps", "2", "--seed", "0")
UNLEAK = (sys.executable, "-m", "unleak")
MARGIN = {"convert": 2.0, "generate": 3.0}
"""GB that a stage may hold beside its file (convert) or its weights in the precision it runs in (generate)."""


# The published architectures, where they are not the defaults of their classes

VISION = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16,
    "patch_size": 14, "projection_dim": 1024, "hidden_act": "gelu",
}  # fmt: skip
WORDS = {"vocab_size": 49408, "max_position_embeddings": 77}
CLIP_H = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16,
    "projection_dim": 512, "hidden_act": "gelu",
}  # fmt: skip
CLIP_L = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "projection_dim": 768,
}  # fmt: skip
IMAGE_VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4, "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2, "latent_channels": 4,
}  # fmt: skip
SD15 = {"cross_attention_dim": 768, "sample_size": 64, "attention_head_dim": 8}


# Random weights in the published forms


def random_state(shapes: Mapping[str, torch.Size], dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights that keep the scale of what goes through them: norms 1, biases 0, matrices of deviation fan^-1/2.

    The noise is one block of a few million numbers, repeated: drawing billions would take longer than all the rest.
    """
    block = torch.randn((1 << 22) + 15, generator=torch.Generator().manual_seed(0)).to(dtype)
    state = {}
    for name, shape in shapes.items():
        if len(shape) < 2:
            state[name] = torch.full(shape, 0.0 if name.endswith("bias") else 1.0, dtype=dtype)
            continue
        state[name] = made = torch.empty(shape, dtype=dtype)
        for part in made.view(-1).split(len(block)):
            torch.mul(block[: len(part)], math.prod(shape[1:]) ** -0.5, out=part)
    return state


def filled(cls: Any, config: Mapping[str, Any] | Any, dtype: torch.dtype) -> Any:
    """A network of a library with random weights."""
    with torch.device("meta"):
        network = cls(config) if not isinstance(config, Mapping) else cls(**config)
    buffers = dict(network.named_buffers())
    network.to_empty(device="cpu")
    network.load_state_dict(random_state(shapes_of(network), dtype), assign=True, strict=False)
    for name in buffers:  # positions, which are counted and not random
        if name.endswith("position_ids"):
            network.get_buffer(name).copy_(torch.arange(buffers[name].shape[-1]))
    return network.eval()


def shapes_of(network: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in network.state_dict().items()}


def lvdm_file(family: str, variant: str, dtype: torch.dtype, path: Path) -> None:
    """A checkpoint of DynamiCrafter or VideoCrafter1, with the tensors that nothing uses."""
    from unleak.cli.convert import _family
    from unleak.families.lvdm.convert import to_original
    from unleak.families.lvdm.folder import components
    from unleak.families.lvdm.original import scheduler_config
    from unleak.families.lvdm.schedule import buffers

    spec = _family(family)
    parts = components(spec, spec.variants[variant])
    original = to_original({part: dict(module.state_dict()) for part, module in parts.items()})
    shapes = {name: tensor.shape for name, tensor in original.items()}
    last = "cond_stage_model.model.transformer.resblocks.23."
    before = "cond_stage_model.model.transformer.resblocks.22."
    shapes |= {last + name.removeprefix(before): shape for name, shape in shapes.items() if name.startswith(before)}
    for tower in ("cond_stage_model.model.", "embedder.model."):
        shapes |= {tower + "logit_scale": torch.Size(()), tower + "text_projection": torch.Size((1024, 1024))}
    for name in ("token_embedding.weight", "positional_embedding", "ln_final.weight", "ln_final.bias"):
        shapes["embedder.model." + name] = shapes["cond_stage_model.model." + name]
    process = scheduler_config(spec.variants[variant])
    wanted = inspect.signature(buffers).parameters
    schedule = buffers(**{"turning_step": 400} | {key: value for key, value in process.items() if key in wanted})
    torch.save({"epoch": 0, "global_step": 20000, "state_dict": random_state(shapes, dtype) | schedule}, path)


def text_encoder(**config: Any) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    return filled(CLIPTextModel, CLIPTextConfig(**WORDS, **config), torch.float32)


def image_vae(cls: Any, dtype: torch.dtype, **config: Any) -> Any:
    return filled(cls, {**IMAGE_VAE, **config}, dtype)


def built_dynamicrafter(folder: Path, words: Path) -> None:
    del words
    lvdm_file("dynamicrafter", "512", torch.float32, folder / "model.ckpt")


def built_videocrafter1(folder: Path, words: Path) -> None:
    del words
    lvdm_file("videocrafter1", "512", torch.float16, folder / "model.ckpt")


def built_svd(folder: Path, words: Path) -> None:
    """The paper's fine-tune (the network and its average, in fp16, without the optimizer), and the model it is of."""
    from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    from unleak.families.svd.convert import UNET

    del words
    half, base = torch.float16, folder / "base"
    with torch.device("meta"):
        unet = UNetSpatioTemporalConditionModel(**UNET)
    unet.save_config(base / "unet")
    filled(CLIPVisionModelWithProjection, CLIPVisionConfig(**VISION), half).save_pretrained(base / "image_encoder")
    image_vae(AutoencoderKLTemporalDecoder, half, force_upcast=True).save_pretrained(base / "vae")
    CLIPImageProcessor().save_pretrained(base / "feature_extractor")
    EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        interpolation_type="linear", use_karras_sigmas=True, timestep_spacing="leading", timestep_type="continuous",
        steps_offset=1, sigma_min=0.002, sigma_max=700.0,
    ).save_pretrained(base / "scheduler")  # fmt: skip
    parts = {
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
        "vae": ["diffusers", "AutoencoderKLTemporalDecoder"],
    }
    index = {"_class_name": "StableVideoDiffusionPipeline", "_diffusers_version": "0.24.0", **parts}
    (base / "model_index.json").write_text(json.dumps(index))
    shapes = shapes_of(unet)
    state = random_state(shapes, half)
    average = [tensor.clone() for tensor in state.values()]
    content = {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}, "ema_state": average}
    torch.save(content, folder / "checkpoint-step-20000.ckpt")


def built_animate_anything(folder: Path, words: Path) -> None:
    """The folder of its own repository, on Stable Diffusion 2's text encoder and VAE."""
    from diffusers import AutoencoderKL, DDIMScheduler
    from safetensors.torch import save_file

    from unleak.families.animate_anything.unet import AnimateAnythingUNet

    full, original = torch.float32, folder / "original"
    with torch.device("meta"):
        unet = AnimateAnythingUNet(motion_mask=True, motion_strength=True)
    (original / "unet").mkdir(parents=True)
    config = {"_class_name": "UNet3DConditionModel", "motion_mask": True, "motion_strength": True}
    (original / "unet/config.json").write_text(json.dumps(config))
    save_file(random_state(shapes_of(unet), full), original / "unet/diffusion_pytorch_model.safetensors")
    text_encoder(**CLIP_H).save_pretrained(original / "text_encoder")
    up = {"up_block_types": ("UpDecoderBlock2D",) * 4}
    image_vae(AutoencoderKL, full, **up).save_pretrained(original / "vae")
    vocabulary(words).save_pretrained(original / "tokenizer")
    DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, timestep_spacing="trailing",
    ).save_pretrained(original / "scheduler")  # fmt: skip
    index = {
        "_class_name": "LatentToVideoPipeline",
        "unet": ["models.unet_3d_condition_mask", "UNet3DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    (original / "model_index.json").write_text(json.dumps(index))


def built_pia(folder: Path, words: Path) -> None:
    """pia.ckpt, and Stable Diffusion 1.5 in float32."""
    from diffusers import AutoencoderKL, MotionAdapter, PNDMScheduler, UNet2DConditionModel

    from unleak.families.pia.convert import original_of, write_checkpoint

    full, base = torch.float32, folder / "base"
    adapter = filled(
        MotionAdapter,
        {"use_motion_mid_block": False, "conv_in_channels": 9},
        full,
    )
    with torch.no_grad():  # positions are constants
        from diffusers.models.embeddings import SinusoidalPositionalEmbedding

        for name, tensor in adapter.state_dict().items():
            if name.endswith(".pe"):
                tensor.copy_(SinusoidalPositionalEmbedding(tensor.shape[2], tensor.shape[1]).pe)
    write_checkpoint(original_of(adapter), folder / "pia.ckpt")
    del adapter
    filled(UNet2DConditionModel, SD15, full).save_pretrained(base / "unet")
    text_encoder(**CLIP_L).save_pretrained(base / "text_encoder")
    image_vae(AutoencoderKL, full, up_block_types=("UpDecoderBlock2D",) * 4).save_pretrained(base / "vae")
    vocabulary(words).save_pretrained(base / "tokenizer")
    PNDMScheduler(skip_prk_steps=True, steps_offset=1).save_pretrained(base / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
    }
    (base / "model_index.json").write_text(json.dumps(index))


def vocabulary(words: Path) -> Any:
    from unleak.families.words import read_words

    return read_words(words)


@dataclass(frozen=True)
class System:
    built: Callable[[Path, Path], None]
    """Writes its files, given a folder and CLIP's vocabulary."""
    family: str
    source: str
    """What `convert` is given, in that folder."""
    options: tuple[str, ...] = ()
    """More that `convert` is given; {folder} and {words} are filled in."""
    prompt: bool = True


SYSTEMS = {
    "dynamicrafter": System(built_dynamicrafter, "dynamicrafter", "model.ckpt", ("--tokenizer", "{words}")),
    "videocrafter1": System(built_videocrafter1, "videocrafter1", "model.ckpt", ("--tokenizer", "{words}")),
    "svd": System(built_svd, "svd", "checkpoint-step-20000.ckpt", ("--base", "{folder}/base"), prompt=False),
    "animate-anything": System(built_animate_anything, "animate-anything", "original"),
    "pia": System(built_pia, "pia", "pia.ckpt", ("--base", "{folder}/base")),
}


# A stage: a command in a process of its own, watched from outside


def watched(command: list[str], log: Path) -> dict[str, Any]:
    """Run a command; its wall time in seconds, peak resident and private memory in GB, and what it printed."""
    began, private = time.monotonic(), 0
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=dict(os.environ))
        while process.poll() is None:
            private = max(private, memory_of(process.pid))
            time.sleep(0.1)
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            if done:
                process.returncode = os.waitstatus_to_exitcode(status)
                break
    assert process.stdout is not None
    said = process.stdout.read()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: status {process.returncode}: {log.read_text()[-2000:]}")
    seconds = time.monotonic() - began
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_gb": round(usage.ru_maxrss * 1024 / GB, 2),
        "private_gb": round(private / GB, 2),
        "said": said,
    }


def memory_of(process: int) -> int:
    """Bytes of memory that no file stands behind."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def bytes_in(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def weights_in(folder: Path) -> int:
    """Parameters of the networks that a pipeline loads, by the headers of their files."""
    from unleak.zoo.hub import networks
    from unleak.zoo.source import Source

    source = Source(str(folder))
    parts = networks(source.read("model_index.json"))
    return sum(sum(source.weights(part)) for part in parts)


def made(name: str, place: Path, words: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of one system up to its pipeline folder."""
    system, files, out = SYSTEMS[name], place / "files", place / "pipeline"
    shutil.rmtree(place, ignore_errors=True)
    files.mkdir(parents=True)
    build = [sys.executable, "-m", "benchmarks.full_size", str(files), "--build", name, "--tokenizer", str(words)]
    row = watched(build, place / "build.log")
    yield "build", row | {"disk_gb": round(bytes_in(files) / GB, 2)}

    options = [option.format(folder=files, words=words) for option in system.options]
    command = [*UNLEAK, "convert", system.family, str(files / system.source), str(out), *options, "--json"]
    read = bytes_in(files) / GB
    row = watched(command, place / "convert.log")
    row |= {"read_gb": round(read, 2), "disk_gb": round(bytes_in(out) / GB, 2)}
    modes = {oct(file.stat().st_mode & 0o777) for file in out.rglob("*.safetensors")}
    yield "convert", row | {"within": row["peak_gb"] <= read + MARGIN["convert"], "modes": sorted(modes)}
    shutil.rmtree(files)


def used(name: str, place: Path, size: str, dtype: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of one system from its pipeline folder on."""
    system, out = SYSTEMS[name], place / "pipeline"
    weights = weights_in(out)
    command = [*UNLEAK, "doctor", "--model", str(out), "--size", size, *CALL[:2], "--dtype", dtype, "--json"]
    yield "doctor", watched(command, place / "doctor.log") | {"size": size}
    photo = Path(__file__).parents[1] / "examples/photo.jpg"
    command = [*UNLEAK, "generate", str(photo), "--model", str(out), "--size", size, *CALL, "--dtype", dtype, "--json"]
    command += ["--out", str(place / "videos"), *(("--prompt", "a boat drifts by") if system.prompt else ())]
    row = watched(command, place / "generate.log")
    (video,) = json.loads(row["said"])["videos"]
    row |= {"video": Path(video["video"]).name, "video_bytes": Path(video["video"]).stat().st_size}
    held = weights * getattr(torch, dtype).itemsize / GB
    row |= {"size": size, "dtype": dtype, "parameters": weights, "weights_gb": round(held, 2)}
    yield "generate", row | {"within": row["peak_gb"] <= held + MARGIN["generate"]}


def machine() -> dict[str, Any]:
    flags = Path("/proc/cpuinfo")
    amx = flags.is_file() and "amx_bf16" in flags.read_text()
    return {"cores": os.cpu_count(), "amx_bf16": amx, "python": platform.python_version(), "torch": torch.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--tokenizer", type=Path, help="OpenCLIP's merges file; by default that of the package.")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--size", default="512x320", help="Of the videos, in pixels.")
    parser.add_argument("--only", choices=("convert", "generate"), help="Stop at the folder; or go on from one.")
    parser.add_argument("--build", help=argparse.SUPPRESS)
    given = parser.parse_args()
    from unleak.families.words import installed_words

    words = given.tokenizer or installed_words()
    if words is None:
        raise SystemExit("CLIP's vocabulary is needed: pip install --no-deps open_clip_torch, or give --tokenizer FILE")
    if given.build:
        SYSTEMS[given.build].built(given.folder, words)
        return
    rows = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    for name in given.systems.split(","):
        place = given.folder / name
        parts = [] if given.only == "generate" else [made(name, place, words)]
        parts += [] if given.only == "convert" else [used(name, place, given.size, given.dtype)]
        try:
            for stage, row in chain(*parts):
                rows = [old for old in rows if (old["system"], old["stage"]) != (name, stage)]
                said = row.pop("said")
                if stage == "doctor":
                    row["estimate"] = json.loads(said)
                rows.append({"system": name, "stage": stage, **row, "machine": machine()})
                RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
                print({key: value for key, value in rows[-1].items() if key not in ("machine", "estimate")}, flush=True)
        finally:
            if given.only != "convert":
                shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
