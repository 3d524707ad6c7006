import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

FORWARD = 1e-4
"""Share of a tensor's range that a network forward, a loss or a whole SVD call may differ by."""
CLOSED_FORM = 3e-6
"""The same for a formula: a few float32 roundings of numbers that may be large against their range."""


@dataclass
class Case:
    """One recorded item: `NAME.json` (settings), `NAME.io.safetensors` (in.*, out.*, stub.*), weights."""

    path: Path
    errors: dict[str, float] = field(default_factory=dict)
    defects: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.config: dict[str, Any] = json.loads(self.path.read_text())
        self._io = load_file(self.path.with_suffix(".io.safetensors"))

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def outputs(self) -> list[str]:
        return [key.removeprefix("out.") for key in self._io if key.startswith("out.")]

    def __contains__(self, key: str) -> bool:
        return key in self._io

    def __getitem__(self, key: str) -> Tensor:
        """A recorded tensor by its full name: `in.noise`, `stub.weight`."""
        return self._io[key]

    def weights(self, file: str | None = None) -> dict[str, Tensor]:
        """Weights in float32: the case's own, or of the file that its settings name."""
        path = self.path.with_name(file) if file else self.path.with_suffix(".weights.safetensors")
        return {key: tensor.float() for key, tensor in load_file(path).items()}

    def compare(self, output: str, ours: Tensor | float, *, share: float = FORWARD) -> None:
        expected = self._io[f"out.{output}"].double()
        ours = torch.as_tensor(ours).detach().double()
        assert ours.shape == expected.shape, (
            f"{self.name} {output}: {list(ours.shape)}, recorded {list(expected.shape)}"
        )
        scale = (expected.max() - expected.min()).item() or expected.abs().max().item() or 1.0
        error = (ours - expected).abs().max().item() / scale
        self.errors[output] = error
        assert error <= share, f"{self.name} {output}: off by {error:.2e} of its range, {share:.0e} allowed"

    def defect(self, output: str) -> None:
        assert f"out.{output}" in self._io, f"{self.name} has no output {output}"
        self.defects.add(output)

    def unaccounted(self) -> set[str]:
        return set(self.outputs) - set(self.errors) - self.defects
