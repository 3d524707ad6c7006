"""Choose the next start to try, to find the highest one that moves enough: bisection over log-SNR."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["FINE", "OVERSHOOT", "Goal", "Seen", "choice", "next_log_snr"]

FINE = 0.2
"""Distance in log-SNR, 10 % in sigma, below which two starts count as one."""
OVERSHOOT = 0.1
"""Share of the target: a start that exceeds the target by no more is good enough."""


@dataclass(frozen=True)
class Seen:
    """The motion and the fidelity of one start; a lower start has a higher log-SNR."""

    log_snr: float
    motion: float
    fidelity: float


@dataclass(frozen=True)
class Goal:
    """The least motion and the least fidelity that a start must have."""

    motion: float
    fidelity: float

    def moves(self, seen: Seen) -> bool:
        """Return whether it moves enough."""
        return seen.motion >= self.motion

    def holds(self, seen: Seen) -> bool:
        """Return whether it is faithful enough."""
        return seen.fidelity >= self.fidelity

    def met(self, seen: Seen) -> bool:
        """Return whether it moves enough and is faithful enough."""
        return self.moves(seen) and self.holds(seen)


def next_log_snr(seen: Sequence[Seen], goal: Goal, *, plain: float | int, lowest: float | int) -> float | None:
    """Return the log-SNR to try next, from `plain` (nothing changed) to `lowest` (the least noisy allowed); None: stop.

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
    """Return the index of the highest start that meets the goal; else of the faithful one that moves most; else of the
    most faithful one. Of equals the highest start is chosen.

    Whatever the response is like, the choice is one that was seen.
    """
    order = sorted(range(len(seen)), key=lambda k: seen[k].log_snr)
    if met := [k for k in order if goal.met(seen[k])]:
        return met[0]
    if holding := [k for k in order if goal.holds(seen[k])]:
        return max(holding, key=lambda k: seen[k].motion)
    return max(order, key=lambda k: seen[k].fidelity)
