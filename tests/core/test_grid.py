"""Grids that start lower, against closed forms."""

from itertools import pairwise

import numpy as np
import pytest

from unleak.core.grid import Flow, Karras, Plain, Table, few_steps, rescale, truncate
from unleak.core.process import shift_sigma

LIGHTNING = [1.0, 0.9375, 0.8333, 0.625, 0.0]
"""The levels that Wan-Lightning is distilled for."""
BETAS = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
TABLE = np.sqrt(1 / np.cumprod(1 - BETAS) - 1)


def flow(steps: int, shift: float = 5.0) -> np.ndarray:
    return np.array([shift_sigma(t, shift) for t in np.linspace(1, 0, steps + 1)])


def karras(steps: int, high: float, low: float = 0.002) -> np.ndarray:
    return np.append((np.linspace(high ** (1 / 7), low ** (1 / 7), steps)) ** 7, 0.0)


@pytest.mark.parametrize("level", [0.97, 0.9, 0.5])
def test_a_rescaled_flow_is_the_unshifted_grid_scaled(level: float) -> None:
    unshifted = level / (5 - 4 * level)
    expected = [shift_sigma(unshifted * t, 5) for t in np.linspace(1, 0, 21)]
    np.testing.assert_allclose(rescale(flow(20), level, Flow(5), anchor=0), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("level", [100.0, 40.0, 3.0])
def test_a_rescaled_karras_grid_is_karras_with_that_sigma_max(level: float) -> None:
    np.testing.assert_allclose(rescale(karras(25, 700), level, Karras()), karras(25, level), rtol=1e-12)


def test_a_rescaled_table_grid_is_even_in_the_index() -> None:
    plain = np.append(TABLE[np.linspace(999, 0, 10).astype(int)], 0.0)
    moved = rescale(plain, TABLE[899], Table(TABLE))
    np.testing.assert_allclose(
        Table(TABLE).time(moved[:-1]), np.linspace(999, 0, 10).astype(int) * 899 / 999, atol=1e-9
    )
    assert moved[-1] == 0


@pytest.mark.parametrize("coordinate", [Plain(), Flow(3), Karras(), Table(TABLE)])
@pytest.mark.parametrize("final", [0.0, None])
def test_rescaling_keeps_the_end_falls_and_starts_where_it_is_told(coordinate, final) -> None:
    plain = np.array([0.99, 0.9, 0.6, 0.2, 0.05] + ([] if final is None else [final]))
    for level in (0.99, 0.8, 0.1):
        moved = rescale(plain, level, coordinate)
        assert moved[0] == level
        assert moved[len(plain) - 1 - (final == 0)] == 0.05
        assert (np.diff(moved) < 0).all()
        assert len(moved) == len(plain)
    np.testing.assert_allclose(rescale(plain, 0.99, coordinate), plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("coordinate", [Plain(), Flow(3), Karras(), Table(TABLE)])
def test_time_and_sigma_are_inverse(coordinate) -> None:
    sigmas = np.array([0.95, 0.5, 0.03])
    np.testing.assert_allclose(coordinate.sigma(coordinate.time(sigmas)), sigmas, rtol=1e-9)
    times = coordinate.time(sigmas)
    assert all(a > b for a, b in pairwise(times))


def test_truncating_puts_the_start_before_the_levels_below_it() -> None:
    np.testing.assert_allclose(truncate(flow(20), 0.9)[:2], [0.9, flow(20)[flow(20) < 0.9][0]])
    assert truncate(flow(20), 0.9)[1:].tolist() == flow(20)[flow(20) < 0.9].tolist()
    assert truncate(flow(20), flow(20)[3]).tolist() == flow(20)[3:].tolist()  # a level of the grid: none is added


def test_a_grid_of_few_steps_is_cut_at_its_own_levels() -> None:
    assert few_steps(8)
    assert not few_steps(9)
    assert truncate(LIGHTNING, 0.981).tolist() == LIGHTNING[1:]
    assert truncate(LIGHTNING, 0.9375).tolist() == LIGHTNING[1:]
    assert truncate(LIGHTNING, 0.7).tolist() == LIGHTNING[3:]
    assert truncate(LIGHTNING, 0.981, snap=False).tolist() == [0.981, *LIGHTNING[1:]]
    assert set(truncate(flow(30), 0.9, snap=True)) < set(flow(30))


@pytest.mark.parametrize(
    ("sigmas", "level", "message"),
    [
        (LIGHTNING, 1.2, "runs from 1 to 0.625"),
        (LIGHTNING, 0.3, "does not lie within the grid"),
        ([0.5, 0.9], 0.6, "falling noise levels"),
        ([1.0, float("nan")], 0.6, "falling noise levels"),
        ([0.0], 0.0, "does not lie within"),
        ([], 0.5, "falling noise levels"),
    ],
)
def test_what_is_no_grid_or_lies_outside_it_is_refused(sigmas, level, message) -> None:
    for change in (truncate, rescale):
        with pytest.raises(ValueError, match=message):
            change(sigmas, level)
