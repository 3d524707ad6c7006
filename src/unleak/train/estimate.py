"""Estimate a run before anything is loaded: parameters, memory, clips in an epoch."""

from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unleak.animate.memory import LiveBytes
from unleak.families.view import view_class
from unleak.train.check import check, shapes_of
from unleak.train.config import Recipe, RecipeError
from unleak.train.data import open_dataset
from unleak.train.networks import DTYPES, trained_weights
from unleak.train.sharding import layers_cut
from unleak.zoo.fetch import pipeline_source
from unleak.zoo.registry import ModelSpec
from unleak.zoo.source import Source

__all__ = ["RunEstimate", "estimate_run"]

_OURS = {"LVDMUNet": "lvdm.unet", "Resampler": "lvdm.resampler", "LinearProjection": "videocrafter1.projection"}
_LIBRARIES = 500_000_000  # what CUDA, cuBLAS and cuDNN keep for themselves


@dataclass(frozen=True)
class RunEstimate:
    """Numbers of parameters, bytes on each accelerator, clips."""

    trained: int
    network: int
    weights: int
    """Bytes of the network's weights, trained or not."""
    state: int
    """Of gradients, optimizer and average."""
    step: int
    """Of the activations of a step, at their peak."""
    clips: int
    steps_per_epoch: float
    epochs: float
    processes: int = 1
    in_parts: bool = False
    """Whether each process has a part of the weights and of the state; else all of them."""

    @property
    def memory(self) -> int:
        """Bytes on each accelerator; what the allocator loses to fragments, the VAE and the text encoder are apart."""
        return self.weights + self.state + self.step + _LIBRARIES

    @property
    def _where(self) -> str:
        if self.processes == 1:
            return "an accelerator"
        return f"each of {self.processes} accelerators, which " + (
            "share the weights" if self.in_parts else "have all weights each"
        )

    @property
    def lines(self) -> list[str]:
        """Say it for people."""
        share = 100 * self.trained / self.network
        gb = {name: getattr(self, name) / 1e9 for name in ("memory", "weights", "state", "step")}
        return [
            f"parameters: {self.trained:,} trained of {self.network:,} ({share:.3g} %)",
            f"memory: about {gb['memory']:.1f} GB on {self._where}: weights {gb['weights']:.1f}, gradients, optimizer"
            f" and average {gb['state']:.1f}, activations {gb['step']:.1f}; not the VAE and the text encoder",
            f"data: {self.clips:,} clips, {self.steps_per_epoch:,.1f} steps an epoch, {self.epochs:,.2f} epochs",
        ]


def estimate_run(recipe: Recipe, *, processes: int = 1) -> RunEstimate:
    """Estimate what `train(recipe)` in so many processes takes, from configurations and headers: no weight is read.

    The network's step is run on tensors without data, forwards and backwards, at the sizes of the recipe; attention is
    taken to keep no square matrix (flash). RecipeError and ValueError as `train` raises them, and for a model whose
    configuration is not on this machine and not to be had.
    """
    spec = check(recipe)
    clips = open_dataset(recipe.data)
    source = pipeline_source(spec)
    view = _without_weights(view_class(spec.pipeline), source, recipe)
    weights = trained_weights(recipe, view)
    trained = sum(weight.numel() for weight in weights.values())
    parameters = {id(p): p for network in view.networks.values() for p in network.parameters()}
    size = DTYPES[recipe.frozen_dtype].itemsize
    held = sum(p.numel() * (4 if p.requires_grad else size) for p in parameters.values())
    optimizer = {"adamw": 8, "adamw8bit": 2, "muon": 6}[recipe.optimizer]
    pieces = recipe.accumulation * processes
    if recipe.batch_size % pieces:
        raise RecipeError(
            f"batch_size: {recipe.batch_size} clips cannot be shared by {processes} processes times"
            f" {recipe.accumulation} accumulation pieces: choose a multiple of {pieces}"
        )
    step = max(_step(recipe, spec, view, recipe.batch_size // pieces, shape) for shape in shapes_of(recipe))
    in_parts = recipe.sharding == "fsdp" and processes > 1
    share, gathered = (processes, _gathered(view)) if in_parts else (1, 0)
    per_epoch = len(clips) / recipe.batch_size
    return RunEstimate(
        trained=trained,
        network=sum(p.numel() for p in parameters.values()),
        weights=held // share + gathered,
        state=trained * (4 + optimizer + 4) // share,
        step=step,
        clips=len(clips),
        steps_per_epoch=per_epoch,
        epochs=recipe.steps / per_epoch,
        processes=processes,
        in_parts=in_parts,
    )


def _gathered(view: Any) -> int:
    """Return the bytes of weights in parts that a process has whole at once: two layers of the largest kind.

    One is at work while the next is gathered; what stands in no such layer is whole throughout.
    """
    found = 0
    for network in view.networks.values():
        left, largest = {id(p): p for p in network.parameters()}, 0
        for layer in reversed(list(network.modules())):  # a layer in a layer has its own parts
            if type(layer).__name__ in layers_cut(network) and layer is not network:
                own = [left.pop(id(p)) for p in layer.parameters() if id(p) in left]
                largest = max(largest, sum(p.numel() * p.element_size() for p in own))
        found = max(found, 2 * largest + sum(p.numel() * p.element_size() for p in left.values()))
    return found


def _without_weights(kind: Any, source: Source, recipe: Recipe) -> Any:
    """Make a view whose networks have shapes only."""
    index = source.read("model_index.json")
    parts = {
        name: _network(source, name, value[1])
        for name, value in index.items()
        if name in ("unet", "transformer", "transformer_2", "image_projection") and isinstance(value, list) and value[1]
    }
    config = SimpleNamespace(boundary_ratio=index.get("boundary_ratio"), expand_timesteps=index.get("expand_timesteps"))
    pipe = SimpleNamespace(config=config, **parts)
    return kind(pipe, experts=recipe.experts)


def _network(source: Source, part: str, name: str) -> nn.Module:
    config = source.read(f"{part}/config.json")
    where = f"unleak.families.{_OURS[name]}" if name in _OURS else "diffusers"
    cls = getattr(import_module(where), name)
    with torch.device("meta"):
        network: nn.Module = cls.from_config(config)
    return network.to("meta").requires_grad_(False)  # numbers given as a list do not follow the context


def _step(recipe: Recipe, spec: ModelSpec, view: Any, clips: int, shape: tuple[int, int, int]) -> int:
    height, width, frames = shape
    latents = (
        (frames - 1) // spec.frame_multiple + 1,
        height // spec.pixels_per_latent,
        width // spec.pixels_per_latent,
    )
    network = next(iter(view.networks.values())).train()
    dtype = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[recipe.mixed_precision]
    network.to(dtype)
    inputs = view.example_inputs(network, clips, *latents)
    told = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}
    before = [tensor.untyped_storage() for tensor in (*network.parameters(), *network.buffers())]
    with patch.object(F, "scaled_dot_product_attention", _flash), LiveBytes(before) as live:
        network(**told, return_dict=False)[0].float().square().mean().backward()
    gradients = sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad)
    return max(0, live.peak - gradients)


class _Flash(torch.autograd.Function):
    """What flash attention keeps: its inputs and its output."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return an empty tensor of the shape that the output would have."""
        out = q.new_empty((*q.shape[:-1], v.shape[-1]))
        ctx.save_for_backward(q, k, v, out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        """Return empty gradients of the inputs' shapes."""
        del gradient
        q, k, v, _ = ctx.saved_tensors
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _flash(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
    out: Tensor = _Flash.apply(query, key, value)
    return out
