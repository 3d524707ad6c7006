"""How the model of a command is loaded: the options that the commands share, checked and carried out in one place."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:  # this module is imported for `unleak --help`, which needs none of these
    from unleak.cli.terminal import Terminal
    from unleak.zoo.hub import Lora
    from unleak.zoo.registry import ModelSpec

__all__ = ["DeviceOption", "DtypeOption", "LoraOption", "OffloadOption", "Placement", "TilingOption"]

DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; by default the accelerator.")]
DtypeOption = Annotated[str | None, typer.Option(help="float32, float16 or bfloat16.")]
LoraOption = Annotated[
    list[str] | None, typer.Option("--lora", metavar="PATH[:SCALE]", help="LoRA weights to add; repeatable.")
]
OffloadOption = Annotated[
    Literal["none", "model", "sequential", "group"],
    typer.Option(help="Keep weights off the accelerator until needed; `unleak doctor --model` says which fits."),
]
TilingOption = Annotated[bool, typer.Option("--vae-tiling", help="Decode in tiles, to save memory.")]


@dataclass(frozen=True)
class Placement:
    """How the model is loaded, beside what it is."""

    dtype: str | None
    offload: str
    vae_tiling: bool
    loras: "tuple[Lora, ...]"

    @classmethod
    def of(cls, dtype: str | None, offload: str, vae_tiling: bool, lora: list[str] | None) -> "Placement":
        """As the options say; ValueError for a LoRA that is not there."""
        from unleak.zoo.hub import Lora

        return cls(dtype, offload, vae_tiling, tuple(Lora.parse(text) for text in lora or []))

    def check(self, spec: "ModelSpec", device: Any) -> None:
        """ValueError for what this model, or this device, cannot do; nothing is loaded."""
        from unleak.zoo.hub import check_abilities, pick_dtype

        pick_dtype(self.dtype, device)
        check_abilities(spec, device=device, offload=self.offload, vae_tiling=self.vae_tiling, loras=self.loras)

    def load(self, spec: "ModelSpec", device: Any, terminal: "Terminal") -> Any:
        """The pipeline, without a bar of its own."""
        from unleak.zoo.hub import load

        pipe = load(
            spec,
            device=device,
            dtype=self.dtype,
            offload=self.offload,
            vae_tiling=self.vae_tiling,
            loras=self.loras,
            say=terminal.note,
            fast=True,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @property
    def record(self) -> dict[str, Any]:
        """As plain values."""
        loras = [lora.record for lora in self.loras]
        return {"loras": loras, "offload": self.offload, "vae_tiling": self.vae_tiling}
