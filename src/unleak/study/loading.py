"""How the model of a study is loaded."""

from dataclasses import dataclass
from typing import Any

from unleak.study.listener import Listener
from unleak.zoo.hub import check_abilities, load, pick_device, pick_dtype
from unleak.zoo.lora import Lora
from unleak.zoo.registry import ModelSpec

__all__ = ["Loading"]


@dataclass(frozen=True)
class Loading:
    """Device, precision, offloading and LoRAs; see `unleak.load`."""

    device: str | None = None
    dtype: str | None = None
    offload: str = "none"
    vae_tiling: bool = False
    loras: tuple[Lora, ...] = ()

    def picked(self) -> Any:
        """Return the torch device."""
        return pick_device(self.device)

    def check(self, spec: ModelSpec, device: Any) -> None:
        """Raise ValueError for what this model, or this device, cannot do; nothing is loaded."""
        pick_dtype(self.dtype, device)
        check_abilities(spec, device=device, offload=self.offload, vae_tiling=self.vae_tiling, loras=self.loras)

    def load(self, spec: ModelSpec, device: Any, listener: Listener) -> Any:
        """Load the pipeline, without a progress bar of its own."""
        pipe = load(
            spec,
            device=device,
            dtype=self.dtype,
            offload=self.offload,
            vae_tiling=self.vae_tiling,
            loras=self.loras,
            say=listener.note,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @property
    def record(self) -> dict[str, Any]:
        """As plain values."""
        loras = [lora.record for lora in self.loras]
        return {"loras": loras, "offload": self.offload, "vae_tiling": self.vae_tiling}
