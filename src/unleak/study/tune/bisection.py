"""Where to look next for the highest start that moves enough: bisection over log-SNR that trusts only what it saw."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["FINE", "OVERSHOOT", "Goal", "Seen", "choice", "next_log_snr"]

FINE = 0.2
"""Of log-SNR, 10 % in sigma: starts that are closer are not told apart."""
OVERSHOOT = 0.1
"""Of the target: a start that exceeds it by no more is not improved upon."""


@dataclass(frozen=True)
class Seen:
    """What a start gave: the lower it is, the higher its log-SNR."""

    log_snr: float
    motion: float
    fidelity: float


@dataclass(frozen=True)
class Goal:
    """At least so much of both."""

    motion: float
    fidelity: float

    def moves(self, seen: Seen) -> bool:
        """Whether it moves enough."""
        return seen.motion >= self.motion

    def holds(self, seen: Seen) -> bool:
        """Whether it is faithful enough."""
        return seen.fidelity >= self.fidelity

    def met(self, seen: Seen) -> bool:
        """Whether it is what is looked for."""
        return self.moves(seen) and self.holds(seen)


def next_log_snr(seen: Sequence[Seen], goal: Goal, *, plain: float | int, lowest: float | int) -> float | None:
    """The log-SNR to try next, from `plain` (nothing changed) to `lowest` (the least noisy allowed); None: enough.

    Both ends first. Then the gap above the highest start that meets the goal is halved; where none does, the gap below
    the last one that is only too still, which is where motion or fidelity changes. If all are too still, the gap beside
    the one that moves most: where motion grows towards `lowest` that is one look, to be sure that it does.
    """
    order = sorted(seen, key=lambda one: one.log_snr)
    if not order:
        return plain
    if goal.met(order[0]) and order[0].log_snr == plain:
        return None
    if order[-1].log_snr < lowest:
        return lowest
    turn = next((k for k, one in enumerate(order) if goal.met(one)), None)
    if turn is None:
        turn = next((k for k, one in enumerate(order) if goal.moves(one) or not goal.holds(one)), None)
    elif order[turn].motion <= (1 + OVERSHOOT) * goal.motion:
        return None
    if turn is not None:
        gaps = [(order[turn - 1], order[turn])] if turn else []
    else:
        most = max(range(len(order)), key=lambda k: order[k].motion)
        gaps = [(order[k], order[k + 1]) for k in (most - 1, most) if 0 <= k < len(order) - 1]
        if most == len(order) - 1 and len(order) > 2:
            return None
    wide = [(low, high) for low, high in gaps if high.log_snr - low.log_snr > FINE]
    if not wide:
        return None
    low, high = max(wide, key=lambda gap: gap[1].log_snr - gap[0].log_snr)
    return (low.log_snr + high.log_snr) / 2


def choice(seen: Sequence[Seen], goal: Goal) -> int:
    """The index of the highest start that meets the goal; else of the one that holds and moves most; else of the most
    faithful. Of equals the highest.

    Whatever the response is like, the choice is one that was seen.
    """
    order = sorted(range(len(seen)), key=lambda k: seen[k].log_snr)
    if met := [k for k in order if goal.met(seen[k])]:
        return met[0]
    if holding := [k for k in order if goal.holds(seen[k])]:
        return max(holding, key=lambda k: seen[k].motion)
    return max(order, key=lambda k: seen[k].fidelity)
