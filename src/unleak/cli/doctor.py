"""`unleak doctor`: what is installed, what the machine has, which models fit."""

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from unleak import __version__
from unleak.cli.options import JsonOption, QuietOption, parse_size
from unleak.cli.terminal import Terminal

_PARTS = {
    "base": ("torch", "diffusers", "transformers", "accelerate", "safetensors", "huggingface_hub", "av", "pillow"),
    "evaluate": ("opencv-python-headless", "scipy"),
    "train": ("peft", "tensorboard"),
}
_GB = 1e9


def doctor(
    model: Annotated[
        str | None, typer.Option(help="Estimate the memory of one model: a name, a folder, or a Hub id.")
    ] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="With --model: width and height.")] = None,
    num_frames: Annotated[
        int | None, typer.Option(min=2, max=10_000, help="With --model: frames of the video.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="With --model: float32, float16 or bfloat16.")] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show installed parts, device, memory, and which models fit; with --model how one of them would.

    The estimate reads headers and configurations only. It is not a measurement: leave a tenth to spare.
    """
    terminal = Terminal(quiet, as_json)
    if model is not None:
        _estimate(terminal, model, size, num_frames, dtype)
        return
    if size or num_frames or dtype:
        raise ValueError("--size, --num-frames and --dtype are of one model; give --model too")
    machine = _machine()
    parts = {extra: {name: _version(name) for name in names} for extra, names in _PARTS.items()}
    models = _models(machine)
    terminal.line(f"unleak {__version__}, Python {platform.python_version()}, {platform.platform()}")
    for extra, found in parts.items():
        text = ", ".join(f"{name} {number or 'missing'}" for name, number in found.items())
        hint = "" if all(found.values()) or extra == "base" else f" (pip install 'unleak[{extra}]')"
        terminal.line(f"{extra}: {text}{hint}")
    terminal.line(
        f"device: {machine['device']}, {machine['dtype']}, {machine['device_gb']:.0f} GB; "
        f"memory: {machine['memory_gb']:.0f} GB, {machine['free_memory_gb']:.0f} free; {machine['cores']} cores"
    )
    for model_ in models:
        fits = "fits" if model_["fits"] else f"needs about {model_['needs_gb']:.0f} GB"
        here = "here" if model_["here"] else "not downloaded"
        terminal.line(f"model {model_['name']}: {fits}, {here}; {model_['summary']}; {model_['licence']}")
    terminal.json({"unleak": __version__, "parts": parts, "machine": machine, "models": models})


def _estimate(terminal: Terminal, model: str, size: str | None, num_frames: int | None, dtype: str | None) -> None:
    from unleak.zoo.registry import find_model

    width, height = parse_size(size)
    spec = find_model(model)

    from unleak.animate.memory import BY_SPEED, estimate
    from unleak.animate.settings import Settings
    from unleak.zoo.hub import can_tile, pick_device, pick_dtype

    settings = Settings.for_model(spec, height=height, width=width, num_frames=num_frames)
    device, machine = pick_device(), _machine()
    precision = pick_dtype(dtype, device, spec.dtype)
    on_device, in_memory = (int(machine[key] * _GB) for key in ("device_gb", "memory_gb"))
    named = str(precision).removeprefix("torch.")
    terminal.line(f"{spec.name}: {settings.num_frames} frames of {settings.width}x{settings.height} in {named}")
    suggestion, ways = None, list[dict[str, Any]]()
    for tiling in (False, True) if can_tile(spec) else (False,):
        made = estimate(spec, settings, precision, vae_tiling=tiling)
        if not tiling:
            weights = ", ".join(f"{name} {number / _GB:.3g}" for name, number in made.weights.items())
            terminal.line(f"weights in GB: {weights}; a denoising step takes {made.denoising / _GB:.3g} more")
        text = []
        for way in BY_SPEED if device.type != "cpu" else ("none",):
            options = [f"--offload {way}"] * (way != "none") + ["--vae-tiling"] * tiling
            ways.append({"options": options, "peak_gb": made.peak(way) / _GB})
            text.append(f"{made.peak(way) / _GB:.3g} with {way}")
        best = made.fitting(on_device, in_memory) if device.type != "cpu" else made.peak() <= on_device and "none"
        if suggestion is None and best:
            suggestion = [f"--offload {best}"] * (best != "none") + ["--vae-tiling"] * tiling
        decoding = f"decoding{' in tiles' if tiling else ''} takes {made.decoding / _GB:.3g}"
        terminal.line(f"{decoding}; at most {', '.join(text)} {'offload' if device.type != 'cpu' else 'on the CPU'}")
    here = f"{machine['device']} with {machine['device_gb']:.3g} GB"
    if suggestion is None:
        terminal.line(f"nothing fits {here}; give fewer frames or a smaller size")
    else:
        terminal.line(f"fits {here}: unleak generate {' '.join(['...', *suggestion])}")
    terminal.json(
        {
            "model": asdict(spec),
            "settings": settings.record,
            "dtype": named,
            "machine": machine,
            "weights_gb": {name: number / _GB for name, number in made.weights.items()},
            "denoising_gb": made.denoising / _GB,
            "ways": ways,
            "suggestion": suggestion,
        }
    )


def _machine() -> dict[str, Any]:
    import psutil
    import torch

    from unleak.zoo.hub import pick_device, pick_dtype

    device, memory = pick_device(), psutil.virtual_memory()
    on_cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_cuda else str(device),
        "dtype": str(pick_dtype(None, device)).removeprefix("torch."),
        "device_gb": (torch.cuda.mem_get_info(device)[1] if on_cuda else memory.total) / _GB,
        "memory_gb": memory.total / _GB,
        "free_memory_gb": memory.available / _GB,
        "cores": len(psutil.Process().cpu_affinity())
        if hasattr(psutil.Process, "cpu_affinity")
        else psutil.cpu_count(),
    }


def _models(machine: dict[str, Any]) -> list[dict[str, Any]]:
    from unleak.zoo.fetch import here
    from unleak.zoo.registry import MODELS

    rows = []
    for spec in MODELS.values():
        if spec.memory_gb is None:  # `doctor --model NAME` estimates it
            continue
        needed = spec.memory_gb * (2 if machine["dtype"] == "float32" else 1)
        rows.append(
            asdict(spec) | {"needs_gb": needed, "fits": needed <= machine["device_gb"], "here": bool(here(spec))}
        )
    return rows


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
