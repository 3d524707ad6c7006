"""The part of a step that gradients flow through, as one module: so whatever wraps modules sees all that is trained."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from unleak.train.objectives import Objective
from unleak.train.readout import MotionReadout

__all__ = ["TrainingStep"]


class TrainingStep(nn.Module):
    """From what an objective prepared to the losses of its clips."""

    def __init__(self, objective: Objective, readout: MotionReadout | None = None):
        super().__init__()
        self.objective = objective
        self.networks = nn.ModuleDict(objective.view.networks)
        self.readout = readout

    def forward(
        self, prepared: Any, velocity: Float[Tensor, "b 2"] | None = None
    ) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"], Float[Tensor, "b"] | None]:
        """Return how noisy each clip was (a quantile), its loss, and the squared error of the motion read-out."""
        level, loss = self.objective.losses(prepared)
        if self.readout is None or velocity is None:
            return level, loss, None
        assert self.readout.velocity is not None
        return level, loss, (self.readout.velocity - velocity).square().sum(1)
