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
from unleak.core.process import VE, VP, Level, NoiseProcess

__all__ = ["Limits", "Nodes", "ScheduleAdapter", "evenly", "float64", "like"]


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


@dataclass(frozen=True)
class Limits:
    """What a start must keep to in one call."""

    left_out: int = 0
    """How many first steps are left out, in place of a level (`Start.step`)."""
    distilled: str | None = None
    """Why the model is known to be distilled to the levels of its schedule; None: it is not known to be."""
    own_schedule: bool = False
    """Whether the call brings a schedule of its own and nobody asked for a mode: its levels stay as they are."""

    @property
    def why_kept(self) -> str:
        """Say why a schedule keeps to its own levels."""
        if self.own_schedule and not self.distilled:
            return "the call brings its own schedule, whose levels stay as they are"
        return "a model made for few steps knows no noise levels but its own"

    def cannot_rescale(self, steps: int, sigmas: Float64[np.ndarray, " n"], start: float) -> str:
        """Return why a schedule of few steps cannot be rescaled, and what can be done."""
        why = self.distilled or f"the schedule has {steps} steps, as those of distilled models"
        own = ", ".join(f"{sigma:.4g}" for sigma in sigmas)
        return (
            f"a start at sigma {start:.4g} with mode='rescale' would use noise levels that the schedule ({own}) lacks,"
            f" and a distilled model knows no others ({why}): use mode='truncate' or start='step:1', which keep to"
            " those levels, or a fix that leaves them alone, such as Compress, MotionAmplitude or ReferenceBias."
        )


class ScheduleAdapter(ABC):
    """How schedulers of one kind are read and made to start lower.

    The scheduler's own `set_timesteps` lays the plain grid, however the pipeline calls it (a number of steps, sigmas,
    timesteps, mu); then the nodes are moved. A method put on the instance finds its scheduler in `self`, not in a
    closure: some pipelines deep-copy schedulers.
    """

    @abstractmethod
    def process(self, scheduler: Any) -> NoiseProcess:
        """Return the noise process of this scheduler as configured; ValueError if it has none that can be trusted."""

    @abstractmethod
    def first(self, scheduler: Any, level: Level) -> Nodes:
        """Return the one node at `level`."""

    def laid(self, scheduler: Any, level: Level, mode: Mode) -> dict[str, Any]:
        """Return the same entries for the time in which `set_timesteps` lays the grid: as the scheduler had them."""
        del mode
        return {name: scheduler.config[name] for name in self.presented(scheduler, level)}

    @abstractmethod
    def respaced(self, scheduler: Any, plain: Nodes, first: Nodes, arguments: dict[str, Any]) -> Nodes:
        """Return as many nodes as `plain`, from `first` on, spaced likewise.

        arguments: those of `set_timesteps`.
        """

    def fits(self, scheduler: Any) -> bool:
        """Return whether this scheduler is of this kind; some classes can be configured as several."""
        del scheduler
        return True

    def nearest(self, scheduler: Any, level: Level) -> Level:
        """Return the level nearest to `level` that this scheduler can start from."""
        del scheduler
        return level

    def in_latents(self, level: Level) -> Level:
        """Return `level` as the latents between steps have it."""
        return level

    def refusal(self, scheduler: Any, mode: Mode) -> str | None:
        """Return why this scheduler cannot start lower in this mode, and what can be done; None if it can."""
        del scheduler, mode
        return None

    def presented(self, scheduler: Any, level: Level) -> dict[str, Any]:
        """Return the entries of the configuration that pipelines read as the noisiest level, for a lower start."""
        del scheduler, level
        return {}

    def nodes(self, scheduler: Any) -> Nodes:
        """Return the nodes of a schedule that has been set. A second-order scheduler visits all but the first twice."""
        sigmas, timesteps = (float64(values)[:: scheduler.order] for values in (scheduler.sigmas, scheduler.timesteps))
        count = len(sigmas) - (scheduler.order == 1)  # with order 2, the final level falls out
        return Nodes(sigmas[:count], timesteps[:count])

    def level_of(self, scheduler: Any, node: Nodes) -> Level:
        """Return the level of the process at one node."""
        process, sigma = self.process(scheduler), float(node.sigmas.item())
        if isinstance(process, VP):
            return process.level_at_timestep(float(node.timesteps.item()) + 1)
        return Level(1.0, sigma) if isinstance(process, VE) else Level(1 - sigma, sigma)

    def few_steps(self, scheduler: Any, steps: int, limits: Limits) -> bool:
        """Return whether a schedule must keep to its own levels: that of a distilled model, or of the call."""
        del scheduler, steps
        return limits.distilled is not None or limits.own_schedule

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

    def start(self, scheduler: Any, level: Level, mode: Mode, limits: Limits) -> None:
        """Make every schedule of `scheduler` start at `level`, or leave out its first `limits.left_out` steps."""
        adapter, plain = self, type(scheduler).set_timesteps
        presented, laid = self.presented(scheduler, level), self.laid(scheduler, level, mode)
        arguments_of = signature(plain)

        @wraps(plain)
        def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> None:
            self.register_to_config(**laid)
            plain(self, *args, **kwargs)
            self.register_to_config(**presented)
            adapter.move(self, level, mode, limits, arguments_of.bind(self, *args, **kwargs).arguments)

        scheduler.register_to_config(**presented)
        scheduler.set_timesteps = MethodType(set_timesteps, scheduler)

    def move(self, scheduler: Any, level: Level, mode: Mode, limits: Limits, arguments: dict[str, Any]) -> None:
        """Move the plain schedule just set to one that starts at `level`.

        A schedule of few steps, or of a distilled model, gets no level that it lacks: it starts at one of its own, and
        ValueError says that it cannot be rescaled.
        """
        plain, first = self.nodes(scheduler), self.first(scheduler, level)
        scheduler.unleak_plain_steps, scheduler.unleak_grid = len(plain), tuple(plain.sigmas.tolist())
        scheduler.unleak_left_out = limits.left_out
        scheduler.unleak_moved, top, asked = None, plain.sigmas[0], first.sigmas.item()
        few = self.few_steps(scheduler, len(plain), limits)
        kept = limits.left_out or (few and mode != "rescale")
        above = not kept and top < asked and not np.isclose(top, asked, rtol=1e-6)
        scheduler.unleak_above = (asked, top) if above else None
        if limits.left_out >= len(plain) > 0:
            raise ValueError(
                f"start step:{limits.left_out} leaves out {limits.left_out} steps, and the schedule has {len(plain)}:"
                f" leave out at most {len(plain) - 1}."
            )
        if kept:
            own = np.flatnonzero((plain.sigmas <= first.sigmas) | _close(plain.sigmas, first.sigmas))
            at = limits.left_out or (own[0] if len(own) else len(plain) - 1)
            why = limits.why_kept
            scheduler.unleak_moved = None if limits.left_out else (asked, plain.sigmas[at].item(), why)
            if at:
                self.write(scheduler, plain[at:])
                scheduler.register_to_config(**self.presented(scheduler, self.level_of(scheduler, plain[[at]])))
            else:
                scheduler.register_to_config(**self.presented(scheduler, self.process(scheduler).noisiest))
            return
        if few:
            raise ValueError(limits.cannot_rescale(len(plain), plain.sigmas, first.sigmas.item()))
        if mode != "truncate":
            nodes = self.respaced(scheduler, plain, first, arguments)
        else:  # the first plain node gives way even if it lies below: never a step more than the plain schedule has
            below = (plain.sigmas < first.sigmas) & ~_close(plain.sigmas, first.sigmas)
            below[0] = False
            nodes = Nodes.join(first, plain[below])
        self.write(scheduler, nodes)


def _close(a: Float64[np.ndarray, " n"], b: Float64[np.ndarray, " 1"]) -> np.ndarray:
    return np.isclose(a, b, rtol=1e-6, atol=0)


def like(tensor: torch.Tensor, values: Float64[np.ndarray, " n"]) -> torch.Tensor:
    """`values` with the dtype and on the device of `tensor`."""
    return torch.from_numpy(values).to(tensor.dtype).to(tensor.device)  # in this order: not every device has float64


def float64(values: torch.Tensor) -> Float64[np.ndarray, " n"]:
    """`values` for arithmetic that does not round."""
    array: Float64[np.ndarray, " n"] = values.detach().cpu().double().numpy()
    return array
