"""Which weights of a pipeline are trained: all, those of some layers, or adapters (LoRA, arXiv 2106.09685)."""

from collections.abc import Iterable
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn

from unleak.families.view import view_class
from unleak.train.config import LoraConfig, Recipe, RecipeError
from unleak.train.draws import key
from unleak.zoo import hub
from unleak.zoo.registry import find_model

__all__ = ["DTYPES", "adapter_weights", "load_view", "named_again", "trained_weights"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load_view(recipe: Recipe) -> Any:
    """Load the recipe's pipeline on the CPU, frozen, and return its view.

    With `init: random` the U-Net is drawn from its configuration and the seed."""
    spec = find_model(recipe.model)
    frozen, kept = DTYPES[recipe.frozen_dtype], hub.in_float32(spec)
    # Adapters have a precision of their own; any other trained weight is read as exactly as it is stored.
    whole = recipe.trainable != "lora"
    pipe = hub.load(recipe.model, dtype=torch.float32 if whole else frozen, device="cpu")
    if kept and pipe.vae.dtype != torch.float32:
        exact = hub.load(recipe.model, dtype=torch.float32, device="cpu", only=kept)
        pipe.register_modules(**{part: getattr(exact, part) for part in kept})
    view: Any = view_class(spec.pipeline)(pipe, experts=recipe.experts)
    if recipe.init == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key(recipe.seed, "init"))
            pipe.unet = type(pipe.unet).from_config(pipe.unet.config)
        view.unet = pipe.unet
    trained = view.networks.values()
    for name, part in pipe.components.items():
        if isinstance(part, nn.Module):
            part.requires_grad_(False)
            if whole and frozen != torch.float32 and part not in trained and name not in kept:
                part.to(frozen)
    return view


def trained_weights(recipe: Recipe, view: Any) -> dict[str, nn.Parameter]:
    """Return the trained weights by name, in float32 and with gradients; adapters are put in place first.

    Those of the first network have its own names, others begin with the name of theirs.
    """
    if recipe.lora:
        add_adapters(recipe.lora, view, seed=recipe.seed)
    if recipe.gradient_checkpointing:
        for network in view.networks.values():
            if hasattr(network, "enable_gradient_checkpointing"):
                network.enable_gradient_checkpointing()
    weights = {name: weight for name, weight in _all(view) if _is_trained(recipe, view, name)}
    if not weights:
        example = next(name for name, _ in _all(view))
        asked = recipe.trainable if isinstance(recipe.trainable, list) else [recipe.trainable]
        raise RecipeError(f"trainable: no parameter of the network matches {', '.join(asked)}; one is {example}")
    for network in view.networks.values():
        for layer in network.modules():
            if isinstance(layer, nn.GroupNorm):
                layer.register_forward_pre_hook(_ask_for_gradient)
    for weight in weights.values():
        weight.data = weight.data.float()
        weight.requires_grad_(True)
    return weights


def named_again(view: Any, names: Iterable[str]) -> dict[str, nn.Parameter]:
    """Return the parameters that have these names now."""
    every = dict(_all(view))
    return {name: every[name] for name in names}


def add_adapters(config: LoraConfig, view: Any, *, seed: int) -> None:
    """Put adapters, drawn from the seed, beside the linear layers that `config.targets` names."""
    try:
        from peft import LoraConfig as Peft
        from peft import inject_adapter_in_model
    except ImportError:
        raise RecipeError("trainable: lora needs peft; install it with `pip install 'unleak[train]'`") from None
    targets = config.targets if isinstance(config.targets, list) else view.lora_targets[config.targets]
    adapters = Peft(
        r=config.rank, lora_alpha=config.alpha or config.rank, lora_dropout=config.dropout, target_modules=list(targets)
    )
    name, *_ = view.networks
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "lora"))
        for network in _adapted(view).values():
            if not any(_ends(layer, targets) for layer, _ in network.named_modules()):
                raise RecipeError(f"lora.targets: no layer of the {name} ends in {', '.join(targets)}")
            inject_adapter_in_model(adapters, network)


def adapter_weights(view: Any, weights: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Sort trained adapters by network, under the names that diffusers gives them."""
    first, *others = _adapted(view)
    found: dict[str, dict[str, Tensor]] = {name: {} for name in (first, *others)}
    for name, tensor in weights.items():
        network = next((other for other in others if name.startswith(f"{other}.")), first)
        own = name.removeprefix(f"{network}.") if network != first else name
        found[network][own.replace(".default.", ".")] = tensor
    return found


def _ask_for_gradient(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """On the CPU PyTorch (2.13) crashes in the backward pass of a group norm that is trained behind frozen layers, if
    its input has its channels last."""
    (x,) = inputs
    wanted = x.device.type == "cpu" and torch.is_grad_enabled() and not x.requires_grad
    return (x.detach().requires_grad_(),) if wanted and any(p.requires_grad for p in layer.parameters()) else None


def _adapted(view: Any) -> dict[str, nn.Module]:
    """Return the networks that get adapters: those that predict, not the projections before them."""
    return {name: network for name, network in view.networks.items() if name != "image_projection"}


def _ends(layer: str, targets: Any) -> bool:
    return any(layer == target or layer.endswith(f".{target}") for target in targets)


def _all(view: Any) -> list[tuple[str, nn.Parameter]]:
    named = []
    for i, (name, network) in enumerate(view.networks.items()):
        prefix = f"{name}." if i else ""
        named += [(prefix + own, weight) for own, weight in network.named_parameters()]
    return named


def _is_trained(recipe: Recipe, view: Any, name: str) -> bool:
    match recipe.trainable:
        case "all":
            return True
        case "lora":
            return ".lora_" in name
        case "temporal":
            return any(fnmatch(name, pattern) for pattern in view.temporal)
        case "spatial":
            return not any(fnmatch(name, pattern) for pattern in view.temporal)
        case patterns:
            return any(fnmatch(name, pattern) for pattern in patterns)
