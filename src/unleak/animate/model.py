"""A model with its pipeline loaded, and how it was loaded."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from unleak.animate.memory import advising
from unleak.animate.noise import initial_noise
from unleak.animate.settings import Settings
from unleak.core.initial import InitialNoise
from unleak.zoo import hub
from unleak.zoo.lora import Lora
from unleak.zoo.registry import ModelSpec

__all__ = ["Loading", "Model"]


@dataclass(frozen=True)
class Loading:
    """How a pipeline is loaded; see `unleak.load`."""

    device: str | None = None
    dtype: str | None = None
    offload: str = "none"
    vae_tiling: bool = False
    loras: tuple[Lora, ...] = ()

    def check(self, spec: ModelSpec, device: torch.device | None = None) -> None:
        """Raise ValueError for what this model, or the device, cannot do; nothing is loaded."""
        on = device or hub.pick_device(self.device)
        hub.pick_dtype(self.dtype, on)
        hub.check_abilities(spec, device=on, offload=self.offload, vae_tiling=self.vae_tiling, loras=self.loras)

    def advising(self, spec: ModelSpec, settings: Settings, device: torch.device) -> AbstractContextManager[None]:
        """Say what to try next if the memory does not suffice in the body."""
        return advising(spec, settings, device, offload=self.offload, vae_tiling=self.vae_tiling)

    @property
    def record(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "loras": [lora.record for lora in self.loras],
            "offload": self.offload,
            "vae_tiling": self.vae_tiling,
        }


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded pipeline and where it comes from."""

    spec: ModelSpec
    pipe: Any
    device: torch.device
    loading: Loading = field(default_factory=Loading)

    @classmethod
    def load(
        cls,
        spec: ModelSpec,
        loading: Loading | None = None,
        *,
        device: torch.device | None = None,
        say: Callable[[str], None] | None = None,
    ) -> "Model":
        """Load the pipeline, without a progress bar of its own; `say` hears what is downloaded or not verified."""
        how = loading or Loading()
        on = device or hub.pick_device(how.device)
        pipe = hub.load(
            spec,
            device=on,
            dtype=how.dtype,
            offload=how.offload,
            vae_tiling=how.vae_tiling,
            loras=how.loras,
            say=say,
            fast=True,
        )
        pipe.set_progress_bar_config(disable=True)
        return cls(spec, pipe, on, how)

    @classmethod
    def given_or_loaded(
        cls,
        model: Any,
        spec: ModelSpec,
        loading: Loading,
        *,
        device: torch.device,
        say: Callable[[str], None] | None = None,
    ) -> "Model":
        """Take `model` if it is a loaded pipeline; load `spec` if it is a name, a path or a spec."""
        if isinstance(model, str | Path | ModelSpec):
            return cls.load(spec, loading, device=device, say=say)
        if loading != Loading():
            raise ValueError("a loaded pipeline is used as it is: leave device, dtype, offload and LoRAs out")
        return cls(spec, model, model.device)

    def noise(self, settings: Settings) -> InitialNoise:
        """Make the initial noise that `settings` name."""
        return initial_noise(settings, self.spec)

    def advising(self, settings: Settings) -> AbstractContextManager[None]:
        """Say what to try next if the memory does not suffice in the body."""
        return self.loading.advising(self.spec, settings, self.device)
