import numpy as np
import pytest
from scipy import stats

from benchmarks.evidence.distribution import energy_distance, energy_distance_to_law, mmd2

RNG = np.random.default_rng(0)


def test_energy_distance_of_points_by_hand():
    x, y = np.array([[0.0], [0.0]]), np.array([[3.0], [3.0]])
    assert energy_distance(x, y) == 6
    assert energy_distance(x, x) == 0


def test_energy_distance_agrees_with_scipy_on_large_samples():
    x, y = RNG.normal(0, 1, (2000, 1)), RNG.normal(1, 2, (2000, 1))
    assert energy_distance(x, y) == pytest.approx(stats.energy_distance(x[:, 0], y[:, 0]) ** 2, abs=0.01)


def test_a_known_law_is_the_limit_of_its_samples():
    law, weights = np.array([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]), np.array([0.4, 0.2, 0.4])
    x = RNG.normal(0.3, 0.5, (50, 2))
    sampled = law[RNG.choice(3, 4000, p=weights)]
    assert energy_distance_to_law(x, law, weights) == pytest.approx(energy_distance(x, sampled), abs=0.05)


@pytest.mark.parametrize("distance", [energy_distance, mmd2])
def test_equal_distributions_scatter_around_zero(distance):
    found = np.array([distance(RNG.normal(size=(20, 3)), RNG.normal(size=(20, 3))) for _ in range(400)])
    assert abs(found.mean()) < 3 * found.std() / 20  # unbiased
    assert (found < 0).mean() > 0.3
    assert distance(RNG.normal(size=(50, 3)) + 1, RNG.normal(size=(50, 3))) > 5 * found.std()


def test_always_still_is_as_far_from_either_way_as_one_way_only():
    law, weights = np.array([[-1.0], [1.0]]), np.array([0.5, 0.5])
    still, one_way, both = np.zeros((4, 1)), np.ones((4, 1)), np.array([[-1.0], [1.0], [-1.0], [1.0]])
    assert energy_distance_to_law(still, law, weights) == 1
    assert energy_distance_to_law(one_way, law, weights) == 1
    assert energy_distance_to_law(both, law, weights) < 0  # unbiased: four perfect samples scatter below 0 too


def test_what_cannot_be_compared():
    with pytest.raises(ValueError, match="two or more each"):
        mmd2(np.zeros((1, 2)), np.zeros((5, 2)))
    with pytest.raises(ValueError, match="not finite: failures have to be counted"):
        energy_distance(np.array([[np.nan], [1.0]]), np.ones((3, 1)))
    with pytest.raises(ValueError, match=r"sum to 1, not to 0\.9"):
        energy_distance_to_law(np.ones((3, 1)), np.ones((2, 1)), np.array([0.5, 0.4]))
    with pytest.raises(ValueError, match="no bandwidth"):
        mmd2(np.zeros((3, 1)), np.zeros((3, 1)))
