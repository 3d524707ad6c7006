"""`unleak doctor`: what is installed, what the machine has, which models fit."""

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated, Any

from unleak import __version__
from unleak.cli.options import BASIC, MEMORY, command, option, to_size, whole
from unleak.cli.studies import Spoken
from unleak.cli.terminal import Terminal

if TYPE_CHECKING:  # this module is imported for `unleak --help`, which needs none of these
    from unleak.families.spec import ModelSpec

_PARTS = {
    "base": ("torch", "diffusers", "transformers", "accelerate", "safetensors", "huggingface_hub", "av", "pillow"),
    "evaluate": ("opencv-python-headless", "scipy", "jinja2", "matplotlib"),
    "train": ("peft", "tensorboard"),
    "ui": ("gradio",),
}
_GB = 1e9


@command
def doctor(
    spoken: Spoken,
    model: Annotated[
        str | None, option("NAME", "Estimate the memory of one model: a name, a folder, or a Hub id.", panel=BASIC)
    ] = None,
    everything: Annotated[
        bool, option("", "Estimate all models that have a name here; asks the Hub.", "--all", panel=BASIC)
    ] = False,
    size: Annotated[
        Any, option("WxH", "With --model: width and height in pixels.", parse=to_size, panel=MEMORY)
    ] = None,
    num_frames: Annotated[
        int | None, option("N", "With --model: frames of the video.", parse=whole(2, 10_000), panel=MEMORY)
    ] = None,
    dtype: Annotated[str | None, option("NAME", "With --model: float32, float16 or bfloat16.", panel=MEMORY)] = None,
) -> None:
    """Show installed parts, device, memory, and which models fit; with --model how one of them would.

    The estimate reads headers and configurations only. It is not a measurement: leave a tenth to spare.
    """
    terminal = spoken.terminal()
    if model is not None:
        _one(terminal, model, size, num_frames, dtype)
        return
    if size or num_frames or dtype:
        raise ValueError("--size, --num-frames and --dtype are of one model; give --model too")
    parts = {extra: {name: _version(name) for name in names} for extra, names in _PARTS.items()}
    terminal.line(f"unleak {__version__}, Python {platform.python_version()}, {platform.platform()}")
    for extra, found in parts.items():
        terminal.line(f"{extra}: " + ", ".join(f"{name} {number or 'missing'}" for name, number in found.items()))
    if lacking := [extra for extra, found in parts.items() if not all(found.values()) and extra != "base"]:
        line = f"pip install 'unleak[{','.join(lacking)}]'"
        terminal.line(f"missing extras: {', '.join(lacking)}; to install them: {line}")
    machine = _machine()
    terminal.line(
        f"device: {machine['device']}, {machine['dtype']}, {machine['device_gb']:.0f} GB; "
        f"memory: {machine['memory_gb']:.0f} GB, {machine['free_memory_gb']:.0f} free; {machine['cores']} cores"
    )
    rows = _models(terminal, machine, everything=everything)
    terminal.json({"unleak": __version__, "parts": parts, "machine": machine, "models": rows})


def _models(terminal: Terminal, machine: dict[str, Any], *, everything: bool) -> list[dict[str, Any]]:
    """Say of every model that has a name here what it needs, as `--model` would for those whose files are here."""
    from unleak.zoo.fetch import here
    from unleak.zoo.registry import MODELS

    rows, unknown = [], []
    for spec in MODELS.values():
        present = bool(here(spec))
        found = _estimated(spec, machine) if present or everything else None
        needed = {name: found and found[name] for name in ("ways", "suggestion")}
        rows.append({**asdict(spec), "here": present, **needed})
        place = "here" if present else "not downloaded"
        if found is None:
            unknown.append(spec.name)
            continue
        needs = ", ".join(f"{one['peak_gb']:.3g} GB {' '.join(one['options']) or 'as it is'}" for one in found["ways"])
        fits = "fits: unleak generate --model " + " ".join([spec.name, *(found["suggestion"] or ())])
        terminal.line(f"{spec.name}: {place}; {needs}; {'does not fit' if found['suggestion'] is None else fits}")
    if unknown:
        terminal.line(f"not downloaded: {', '.join(unknown)}")
        terminal.line("`unleak doctor --model NAME` says what one of them needs, `--all` what each does (asks the Hub)")
    return rows


def _estimated(spec: "ModelSpec", machine: dict[str, Any], **asked: Any) -> dict[str, Any] | None:
    """What a model needs for each way to load it; None for one whose files cannot be had."""
    try:
        return _estimate(spec, machine, None, **asked)
    except (ValueError, OSError):
        return None


def _estimate(spec: "ModelSpec", machine: dict[str, Any], dtype: str | None, **asked: Any) -> dict[str, Any]:
    """What a model needs for each way to load it, and the fastest way that fits this machine."""
    from unleak.animate.memory import BY_SPEED, estimate
    from unleak.animate.settings import Settings
    from unleak.zoo.hub import can_tile, pick_device, pick_dtype

    settings = Settings.for_model(spec, **asked)
    device = pick_device()
    precision = pick_dtype(dtype, device, spec.dtype)
    on_device, in_memory = (int(machine[key] * _GB) for key in ("device_gb", "memory_gb"))
    suggestion, ways = None, list[dict[str, Any]]()
    for tiling in (False, True) if can_tile(spec) else (False,):
        made = estimate(spec, settings, precision, vae_tiling=tiling)
        for way in BY_SPEED if device.type != "cpu" else ("none",):
            options = [f"--offload {way}"] * (way != "none") + ["--vae-tiling"] * tiling
            ways.append({"options": options, "peak_gb": made.peak(way) / _GB, "decoding_gb": made.decoding / _GB})
        best = made.fitting(on_device, in_memory) if device.type != "cpu" else made.peak() <= on_device and "none"
        if suggestion is None and best:
            suggestion = [f"--offload {best}"] * (best != "none") + ["--vae-tiling"] * tiling
    return {
        "settings": settings.record,
        "dtype": str(precision).removeprefix("torch."),
        "weights_gb": {name: number / _GB for name, number in made.weights.items()},
        "denoising_gb": made.denoising / _GB,
        "ways": ways,
        "suggestion": suggestion,
    }


def _one(terminal: Terminal, model: str, size: Any, num_frames: int | None, dtype: str | None) -> None:
    """Say what one model needs, and its own motion knobs."""
    from unleak.animate.knobs import knobs
    from unleak.zoo.registry import find_model

    spec, machine = find_model(model), _machine()
    width, height = size or (None, None)
    found = _estimate(spec, machine, dtype, height=height, width=width, num_frames=num_frames)
    asked = found["settings"]["arguments"]
    frames = asked.get("num_frames", asked.get("frames"))
    terminal.line(f"{spec.name}: {frames} frames of {asked['width']}x{asked['height']} in {found['dtype']}")
    weights = ", ".join(f"{name} {number:.3g}" for name, number in found["weights_gb"].items())
    terminal.line(f"weights in GB: {weights}; a denoising step takes {found['denoising_gb']:.3g} more")
    for one in found["ways"]:
        how = " ".join(one["options"]) or "as it is"
        terminal.line(f"{how}: at most {one['peak_gb']:.3g} GB, of which decoding takes {one['decoding_gb']:.3g}")
    for knob in knobs(spec):
        terminal.line(knob.text)
    here = f"{machine['device']} with {machine['device_gb']:.3g} GB"
    if found["suggestion"] is None:
        terminal.line(f"nothing fits {here}; give fewer frames or a smaller size")
    else:
        terminal.line(f"fits {here}: unleak generate {' '.join(['...', *found['suggestion']])}")
    terminal.json({"model": asdict(spec), "machine": machine, "knobs": [asdict(one) for one in knobs(spec)], **found})


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


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
