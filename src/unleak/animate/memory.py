"""Estimate the memory that a video takes before anything is loaded, and say what to try where there is not enough."""

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from unleak.animate.sample import OutOfMemoryError
from unleak.animate.settings import Settings
from unleak.attach.latent_space import latent_channels
from unleak.attach.seams import seam_of_class
from unleak.families.registry import found_in
from unleak.zoo.classes import pipeline_class
from unleak.zoo.fetch import pipeline_source
from unleak.zoo.hub import can_tile, in_float32, networks
from unleak.zoo.registry import ModelSpec

__all__ = ["BY_SPEED", "Estimate", "advising", "estimate", "next_to_try"]

BY_SPEED = ("none", "model", "group", "sequential")
"""Ways to offload, the fastest first."""

_DENOISERS = ("unet", "transformer", "transformer_2")
_LIBRARIES = 500_000_000  # what CUDA, cuBLAS and cuDNN keep for themselves

# A denoiser's activations at their peak, in multiples of its hidden state: of the tokens of a transformer times their
# width, of the first level of a UNet. Counted by running each class at its published width, at two or more sizes, on
# tensors without data, with attention that keeps no square matrix (flash). Other classes are taken to be as the
# average transformer of the table.
_TIMES_HIDDEN = {
    "UNetSpatioTemporalConditionModel": 28,
    "LVDMUNet": 32,
    "AnimateAnythingUNet": 36,
    "UNetMotionModel": 27,
    "WanTransformer3DModel": 12,
    "SkyReelsV2Transformer3DModel": 12,
    "CogVideoXTransformer3DModel": 14,
    "HunyuanVideoTransformer3DModel": 18,
    "LTXVideoTransformer3DModel": 29,
}
_TIMES_HIDDEN_ELSEWHERE = 18


@dataclass(frozen=True)
class Estimate:
    """Bytes on the accelerator; `peak` puts them together."""

    weights: Mapping[str, int]
    """Of each network."""
    largest_layer: int
    denoising: int
    """Activations of one step."""
    decoding: int
    """Activations of the VAE."""

    def peak(self, offload: str = "none") -> int:
        """Return the most bytes that are on the accelerator at any time.

        none: all weights. model: one network with what it needs to run. group: two layers, one of them ahead of its
        turn; sequential: one.
        """
        working = {name: self.denoising if name in _DENOISERS else 0 for name in self.weights}
        working["vae"] = self.decoding
        most = max(self.denoising, self.decoding)
        match offload:
            case "none":
                needed = sum(self.weights.values()) + most
            case "model":
                needed = max(self.weights.get(name, 0) + active for name, active in working.items())
            case "group":
                needed = 2 * self.largest_layer + most
            case _:
                needed = self.largest_layer + most
        return needed + _LIBRARIES

    def fitting(self, device_bytes: int, memory_bytes: int) -> str | None:
        """Return the fastest way to offload with which the model fits this memory; None if it fits with none."""
        held = sum(self.weights.values())
        ways = [way for way in BY_SPEED if self.peak(way) <= device_bytes and (way == "none" or held <= memory_bytes)]
        return ways[0] if ways else None


def estimate(spec: ModelSpec, settings: Settings, dtype: torch.dtype, *, vae_tiling: bool = False) -> Estimate:
    """Estimate the memory that one video takes from headers and configurations alone.

    Weights: parameters by the headers of the safetensors files, in the precision they are loaded in. Denoising: a
    multiple of the hidden state, `_TIMES_HIDDEN`. Decoding: the VAE's own decoder, run on tensors without data.
    Attention is taken to be flash attention; what the allocator loses to fragments is not counted. ValueError for a
    model whose files cannot be had.
    """
    source = pipeline_source(spec)
    index = source.read("model_index.json")
    variant = spec.variant if dtype == torch.float16 else None
    kept = in_float32(spec)
    weights, largest = {}, 0
    for part in networks(index):
        numbers = source.weights(part, variant)
        size = 4 if part in kept else dtype.itemsize
        if numbers:
            weights[part] = sum(numbers) * size
            largest = max(largest, max(numbers) * size)
    if not weights:
        raise ValueError(f"model {spec.name}: no safetensors in it; download it again")
    decoding = _decoding(spec, settings, index, torch.float32 if "vae" in kept else dtype, tiling=vae_tiling)
    return Estimate(weights, largest, _denoising(spec, settings, index, dtype), decoding)


@contextmanager
def advising(
    spec: ModelSpec, settings: Settings, device: torch.device, *, offload: str, vae_tiling: bool
) -> Iterator[None]:
    """Turn running out of memory in the body into a ValueError that names what to try next."""
    try:
        yield
    except OutOfMemoryError as error:
        tiling = vae_tiling or not can_tile(spec)
        advice = next_to_try(spec, settings, device, offload, tiling=tiling, decoding=error.decoding)
        raise ValueError(f"out of memory on {device}; {advice}") from error
    except torch.OutOfMemoryError as error:
        advice = next_to_try(spec, settings, device, offload, tiling=True, decoding=False)
        raise ValueError(f"out of memory on {device} while loading {spec.name}; {advice}") from error


def next_to_try(
    spec: ModelSpec, settings: Settings, device: torch.device, offload: str, *, tiling: bool, decoding: bool
) -> str:
    """Return what to try after running out of memory, the least costly way first.

    tiling: the VAE tiles already, or cannot; decoding: it was the VAE that needed too much.
    """
    offloads = BY_SPEED[BY_SPEED.index(offload) + 1 :][:1] if device.type != "cpu" else ()
    ways = [f"--offload {way}" for way in offloads]
    if not tiling:
        ways.insert(0 if decoding else len(ways), "--vae-tiling")
    if decoding and (settings.arguments.get("decode_chunk_size") or 0) > 1:
        ways.insert(0, "--set decode_chunk_size=1")
    if settings.num_frames and settings.num_frames > 2 * spec.frame_multiple:
        ways.append(f"--num-frames {(settings.num_frames // 2) // spec.frame_multiple * spec.frame_multiple + 1}")
    if settings.height and settings.width:
        multiple = spec.size_multiple
        height, width = (max(side // 2 // multiple, 1) * multiple for side in (settings.height, settings.width))
        if (height, width) != (settings.height, settings.width):
            ways.append(f"--size {width}x{height}")
    if not ways:
        return "nothing smaller is left to try with this model"
    return f"next, try {ways[0]}" + (f"; after that {', '.join(ways[1:])}" if ways[1:] else "")


def _denoising(spec: ModelSpec, settings: Settings, index: Mapping[str, Any], dtype: torch.dtype) -> int:
    part = "transformer" if index.get("transformer") else "unet"
    config = pipeline_source(spec).read(f"{part}/config.json")
    frames, height, width = _latent_size(spec, settings)
    tokens = frames * height * width
    if part == "unet":
        hidden = (config.get("block_out_channels") or [config["model_channels"]])[0]
    else:
        patch = config.get("patch_size") or 1
        tokens //= (patch**2 if isinstance(patch, int) else patch[0] * patch[1] * patch[2]) * (
            config.get("patch_size_t") or 1
        )
        heads = config.get("num_attention_heads") or 1
        size = config.get("attention_head_dim") or config.get("model_dim") or config.get("hidden_size") or 2048
        hidden = heads * size
    branches = 1 if seam_of_class(pipeline_class(spec.pipeline)).branches == "separate" else 2
    times = _TIMES_HIDDEN.get(str(config.get("_class_name")), 28 if part == "unet" else _TIMES_HIDDEN_ELSEWHERE)
    return times * branches * tokens * hidden * dtype.itemsize


def _decoding(
    spec: ModelSpec, settings: Settings, index: Mapping[str, Any], dtype: torch.dtype, *, tiling: bool
) -> int:
    import diffusers
    from torch._subclasses.fake_tensor import FakeTensorMode

    kind = getattr(diffusers, index["vae"][1])
    config = pipeline_source(spec).read("vae/config.json")
    frames, height, width = _latent_size(spec, settings)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        with FakeTensorMode(), torch.no_grad():
            vae = kind.from_config(config).eval()
            if tiling:
                vae.enable_tiling()
            chunk = _frames_at_once(spec, settings, frames)
            channels = latent_channels(vae)
            of_images, shape = dict[str, int](), [1, channels, frames, height, width]
            if kind.__name__ in ("AutoencoderKL", "AutoencoderKLTemporalDecoder"):  # frame by frame, as images
                shape = [min(chunk, frames), channels, height, width]
                if kind.__name__ == "AutoencoderKLTemporalDecoder":
                    of_images["num_frames"] = shape[0]
            own = [tensor.untyped_storage() for tensor in (*vae.parameters(), *vae.buffers())]
            with LiveBytes(own) as live:
                vae.decode(torch.zeros(shape), return_dict=False, **of_images)
    finally:
        torch.set_default_dtype(before)
    return live.peak


def _frames_at_once(spec: ModelSpec, settings: Settings, frames: int) -> int:
    """Frames that the VAE decodes at once: what the call says, or else what the pipeline does by itself."""
    asked = settings.arguments.get("decode_chunk_size")
    pixels = found_in("pixels_at_once", spec.pipeline)
    if asked is None and pixels is not None:
        assert settings.height
        assert settings.width
        asked = max(pixels // (settings.height * settings.width), 1)
    return int(asked or min(frames, 16))


def _latent_size(spec: ModelSpec, settings: Settings) -> tuple[int, int, int]:
    """Return the frames, the height and the width of the latents."""
    if not (settings.num_frames and settings.height and settings.width):
        raise ValueError(f"a {spec.pipeline} takes its size from the photo: give --size and --num-frames")
    frames = (settings.num_frames - 1) // spec.frame_multiple + 1
    return frames, settings.height // spec.pixels_per_latent, settings.width // spec.pixels_per_latent


class LiveBytes(TorchDispatchMode):
    """Count the bytes of the tensors that are alive at once, without those that were there before."""

    def __init__(self, before: list[torch.UntypedStorage]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: dict[int, Any] = {storage._cdata: storage for storage in before}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._seen:
                    self._count(storage, storage._cdata, storage.nbytes())
        return out

    def _count(self, storage: torch.UntypedStorage, key: int, size: int) -> None:
        def gone(_: Any) -> None:
            self.now -= size
            del self._seen[key]

        self._seen[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)
