"""The search for a start, on responses whose answer is known."""

import math

import pytest

from unleak.study.tune.bisection import FINE, OVERSHOOT, Goal, Seen, choice, next_log_snr

PLAIN, LOWEST = -13.0, -3.0
GOAL = Goal(1.0, 20.0)


def found(motion, fidelity=lambda u: 30.0, *, budget=6, goal=GOAL):
    """The starts tried, in order, and the one chosen."""
    seen = []
    while len(seen) < budget and (u := next_log_snr(seen, goal, plain=PLAIN, lowest=LOWEST)) is not None:
        assert PLAIN <= u <= LOWEST
        assert u not in [one.log_snr for one in seen]
        seen.append(Seen(u, motion(u), fidelity(u)))
    return [one.log_snr for one in seen], seen[choice(seen, goal)]


@pytest.mark.parametrize("turn", [-12.9, -11.0, -8.0, -5.3, -3.01])
def test_a_step_is_found_to_the_width_that_the_budget_allows(turn):
    for budget in (3, 4, 6, 9):
        tried, chosen = found(lambda u: 2.0 * (u >= turn), budget=budget)
        assert len(tried) <= budget
        assert chosen.motion == 2
        width = max(FINE, (LOWEST - PLAIN) / 2 ** (budget - 2))
        assert turn <= chosen.log_snr <= turn + width


@pytest.mark.parametrize("slope", [0.11, 0.2, 0.5])
def test_a_slope_is_climbed_until_it_is_close_enough(slope):
    tried, chosen = found(lambda u: slope * (u - PLAIN), budget=50)
    assert chosen.motion >= 1
    above = [u for u in tried if u < chosen.log_snr]
    assert chosen.motion <= 1 + OVERSHOOT or chosen.log_snr - max(above) <= FINE


def test_a_plain_pipeline_that_moves_is_left_alone():
    assert found(lambda u: 1.0)[0] == [PLAIN]


def test_what_is_out_of_reach_gives_the_most_there_is_and_one_look_between():
    tried, chosen = found(lambda u: 0.05 * (u - PLAIN))
    assert tried == [PLAIN, LOWEST, (PLAIN + LOWEST) / 2]
    assert chosen.log_snr == LOWEST


def test_a_hump_between_still_ends_is_seen():
    tried, chosen = found(lambda u: math.exp(-((u + 8) ** 2)))
    assert chosen.log_snr == -8
    assert chosen.motion == 1
    tried, chosen = found(lambda u: 0.9 * math.exp(-((u + 8) ** 2) / 9))
    assert len(tried) == 6
    assert chosen.motion == 0.9


@pytest.mark.parametrize(("turn", "breaks"), [(-9.0, -6.0), (-6.0, -5.0), (-9.0, -8.4)])
def test_motion_counts_only_where_the_first_frame_holds(turn, breaks):
    _, chosen = found(lambda u: 2.0 * (u >= turn), lambda u: 30.0 if u < breaks else 10.0, budget=12)
    assert turn <= chosen.log_snr < breaks


def test_where_the_picture_breaks_before_it_moves_the_lowest_that_holds_is_best():
    _, chosen = found(lambda u: 0.08 * (u - PLAIN), lambda u: 30.0 if u < -6 else 10.0, budget=9)
    assert chosen.fidelity == 30
    assert -6 - FINE <= chosen.log_snr < -6


def test_where_nothing_holds_the_most_faithful_is_told():
    tried, chosen = found(lambda u: 2.0, lambda u: -u, goal=Goal(1.0, 50.0))
    assert tried == [PLAIN, LOWEST]
    assert chosen.log_snr == PLAIN


@pytest.mark.parametrize("seed", range(40))
def test_no_response_breaks_it(seed):
    import random

    draw = random.Random(seed)
    values = {}

    def motion(u):
        return values.setdefault(u, draw.choice([0.0, draw.random() * 2, 1.0]))

    kept = {}
    budget = draw.randint(1, 12)
    tried, chosen = found(motion, lambda u: kept.setdefault(u, draw.random() * 40), budget=budget)
    assert 1 <= len(tried) <= budget
    met = [u for u in tried if values[u] >= 1 and kept[u] >= 20]
    assert not met or chosen.log_snr == min(met)
    if not met and (holding := [u for u in tried if kept[u] >= 20]):
        assert chosen.motion == max(values[u] for u in holding)
        assert chosen.fidelity >= 20


def test_of_equals_the_highest_start_is_taken():
    seen = [Seen(-5, 0.5, 30), Seen(-9, 0.5, 30), Seen(-3, 2, 0)]
    assert choice(seen, GOAL) == 1
    assert choice([Seen(-5, 1, 30), Seen(-9, 1, 30)], GOAL) == 1
