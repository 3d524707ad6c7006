"""`unleak doctor`: what is installed, what the machine has, which models fit."""

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

from unleak import __version__
from unleak.cli.terminal import Terminal

_PARTS = {
    "base": ("torch", "diffusers", "transformers", "accelerate", "safetensors", "huggingface_hub", "av", "pillow"),
    "evaluate": ("opencv-python-headless", "scipy"),
    "train": ("peft", "tensorboard", "torchdata"),
}
_GB = 1e9


def doctor(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say results and failures only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show installed parts, device, memory, and which models fit."""
    terminal = Terminal(quiet, as_json)
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
    for model in models:
        fits = "fits" if model["fits"] else f"needs about {model['needs_gb']:.0f} GB"
        here = "here" if model["here"] else "not downloaded"
        terminal.line(f"model {model['name']}: {fits}, {here}; {model['summary']}; {model['licence']}")
    terminal.json({"unleak": __version__, "parts": parts, "machine": machine, "models": models})


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
    from huggingface_hub import try_to_load_from_cache

    from unleak.zoo.registry import MODELS

    rows = []
    for spec in MODELS.values():
        needed = spec.memory_gb * (2 if machine["dtype"] == "float32" else 1)
        folder = Path(spec.source)
        here = (
            (folder / "model_index.json").is_file()
            if folder.is_absolute()
            else isinstance(try_to_load_from_cache(spec.source, "model_index.json", revision=spec.revision), str)
        )
        rows.append(asdict(spec) | {"needs_gb": needed, "fits": needed <= machine["device_gb"], "here": here})
    return rows


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
