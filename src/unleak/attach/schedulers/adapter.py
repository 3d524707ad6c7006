"""What every scheduler adapter does: let the scheduler lay its plain grid, then move the nodes of that grid."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from types import MethodType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from unleak.attach.plan import Mode
from unleak.core.grid import evenly
from unleak.core.process import Level, NoiseProcess

__all__ = ["Nodes", "ScheduleAdapter", "evenly", "float64", "like"]


@dataclass(frozen=True)
class Nodes:
    """The levels where steps begin, noisiest first, in the scheduler's units: its sigma and the network's timestep."""

    sigmas: Float64[np.ndarray, " n"]
    timesteps: Float64[np.ndarray, " n"]

    def __getitem__(self, chosen: Any) -> "Nodes":
        return Nodes(self.sigmas[chosen], self.timesteps[chosen])

    def __len__(self) -> int:
        return len(self.sigmas)

    @classmethod
    def join(cls, first: "Nodes", rest: "Nodes") -> "Nodes":
        """`first`, then `rest`."""
        return cls(np.append(first.sigmas, rest.sigmas), np.append(first.timesteps, rest.timesteps))


class ScheduleAdapter(ABC):
    """How schedulers of one kind are read and made to start lower.

    The scheduler's own `set_timesteps` lays the plain grid, however the pipeline calls it (a number of steps, sigmas,
    timesteps, mu); then the nodes are moved. A method put on the instance finds its scheduler in `self`, not in a
    closure: some pipelines deep-copy schedulers.
    """

    @abstractmethod
    def process(self, scheduler: Any) -> NoiseProcess:
        """The noise process of this scheduler as configured; ValueError if it has none that can be trusted."""

    @abstractmethod
    def first(self, scheduler: Any, level: Level) -> Nodes:
        """The one node at `level`."""

    def laid(self, scheduler: Any, level: Level, mode: Mode) -> dict[str, Any]:
        """The same entries while `set_timesteps` lays the grid: as the scheduler had them."""
        del mode
        return {name: scheduler.config[name] for name in self.presented(scheduler, level)}

    @abstractmethod
    def respaced(self, scheduler: Any, plain: Nodes, first: Nodes, arguments: dict[str, Any]) -> Nodes:
        """As many nodes as `plain`, from `first` on and spaced likewise; `arguments` are those of `set_timesteps`."""

    def fits(self, scheduler: Any) -> bool:
        """Whether this scheduler, of a class that can be configured as several kinds, is of this one."""
        del scheduler
        return True

    def nearest(self, scheduler: Any, level: Level) -> Level:
        """The level nearest to `level` that this scheduler can start from."""
        del scheduler
        return level

    def in_latents(self, level: Level) -> Level:
        """`level` as the latents between steps have it."""
        return level

    def refusal(self, scheduler: Any, mode: Mode) -> str | None:
        """Why this scheduler cannot start lower in this mode, and what can be done; None if it can."""
        del scheduler, mode
        return None

    def presented(self, scheduler: Any, level: Level) -> dict[str, Any]:
        """What pipelines read in the scheduler's config as its noisiest level, as it is when it starts lower."""
        del scheduler, level
        return {}

    def nodes(self, scheduler: Any) -> Nodes:
        """The nodes of a schedule that has been set. A second-order scheduler visits all but the first twice."""
        sigmas, timesteps = (float64(values)[:: scheduler.order] for values in (scheduler.sigmas, scheduler.timesteps))
        count = len(sigmas) - (scheduler.order == 1)  # with order 2, the final level falls out
        return Nodes(sigmas[:count], timesteps[:count])

    def calls(self, scheduler: Any) -> int:
        """Return how often a schedule that has been set calls `step`: twice a step but the last with order 2."""
        return scheduler.order * (len(self.nodes(scheduler)) - 1) + 1

    def step_of(self, scheduler: Any, calls: int) -> int:
        """Return the step, from 0, that is being made after so many calls of `step`."""
        return calls // scheduler.order

    def write(self, scheduler: Any, nodes: Nodes) -> None:
        """Make `nodes` the schedule of this scheduler, which ends where it ended."""
        plain, final = self.nodes(scheduler), scheduler.sigmas[-1:]
        if final.item() == plain.sigmas[-1]:  # "sigma_min": the last step stays where it is
            final = like(final, nodes.sigmas[-1:])
        beyond = scheduler.timesteps[scheduler.order * (len(plain) - 1) + 1 :]  # of a scheduler that tells the end too
        repeats = [1] + [scheduler.order] * (len(nodes) - 1)
        scheduler.sigmas = torch.cat([like(scheduler.sigmas, nodes.sigmas.repeat(repeats)), final])
        scheduler.timesteps = torch.cat([like(scheduler.timesteps, nodes.timesteps.repeat(repeats)), beyond])
        scheduler.num_inference_steps = len(nodes)

    def start(self, scheduler: Any, level: Level, mode: Mode) -> None:
        """Make every schedule of `scheduler` start at `level`."""
        adapter, plain = self, type(scheduler).set_timesteps
        presented, laid = self.presented(scheduler, level), self.laid(scheduler, level, mode)
        arguments_of = signature(plain)

        @wraps(plain)
        def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> None:
            self.register_to_config(**laid)
            plain(self, *args, **kwargs)
            self.register_to_config(**presented)
            adapter.move(self, level, mode, arguments_of.bind(self, *args, **kwargs).arguments)

        scheduler.register_to_config(**presented)
        scheduler.set_timesteps = MethodType(set_timesteps, scheduler)

    def move(self, scheduler: Any, level: Level, mode: Mode, arguments: dict[str, Any]) -> None:
        """Move the plain schedule just set to one that starts at `level`."""
        plain, first = self.nodes(scheduler), self.first(scheduler, level)
        if mode == "rescale":
            nodes = self.respaced(scheduler, plain, first, arguments)
        else:  # the first plain node gives way even if it lies below: never a step more than the plain schedule has
            below = (plain.sigmas < first.sigmas) & ~np.isclose(plain.sigmas, first.sigmas, rtol=1e-6, atol=0)
            below[0] = False
            nodes = Nodes.join(first, plain[below])
        scheduler.unleak_plain_steps = len(plain)
        self.write(scheduler, nodes)


def like(tensor: torch.Tensor, values: Float64[np.ndarray, " n"]) -> torch.Tensor:
    """`values` with the dtype and on the device of `tensor`."""
    return torch.from_numpy(values).to(tensor.dtype).to(tensor.device)  # in this order: not every device has float64


def float64(values: torch.Tensor) -> Float64[np.ndarray, " n"]:
    """`values` for arithmetic that does not round."""
    array: Float64[np.ndarray, " n"] = values.detach().cpu().double().numpy()
    return array
