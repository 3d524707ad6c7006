import numpy as np
import pytest

from unleak.measure.frechet import frechet_distance, frechet_of_moments, inception_score, with_error

RNG = np.random.default_rng(0)


def gaussian(d):
    root = RNG.normal(size=(d, d))
    return RNG.normal(size=d), root @ root.T


def test_of_gaussians_in_closed_form():
    """Diagonal: sum of (m - n)^2 + (s - t)^2."""
    m, n, s, t = RNG.normal(size=(4, 6))
    s, t = abs(s), abs(t)
    expected = np.square(m - n).sum() + np.square(s - t).sum()
    assert frechet_of_moments(m, np.diag(s**2), n, np.diag(t**2)) == pytest.approx(expected)
    turn, _ = np.linalg.qr(RNG.normal(size=(6, 6)))  # the distance does not turn with the axes
    turned = frechet_of_moments(turn @ m, turn @ np.diag(s**2) @ turn.T, turn @ n, turn @ np.diag(t**2) @ turn.T)
    assert turned == pytest.approx(expected)


def test_of_covariances_that_do_not_commute():
    from scipy.linalg import sqrtm

    (m, A), (n, B) = gaussian(5), gaussian(5)
    expected = np.square(m - n).sum() + np.trace(A + B - 2 * sqrtm(A @ B).real)
    assert frechet_of_moments(m, A, n, B) == pytest.approx(expected)
    assert frechet_of_moments(n, B, m, A) == pytest.approx(expected)
    assert frechet_of_moments(m, A, m, A) == pytest.approx(0, abs=1e-9)


def test_of_singular_covariances():
    """A rank-one Gaussian against another: |m - n|^2 + |a|^2 + |b|^2 - 2 |a . b|."""
    m, n, a, b = RNG.normal(size=(4, 7))
    expected = np.square(m - n).sum() + a @ a + b @ b - 2 * abs(a @ b)
    assert frechet_of_moments(m, np.outer(a, a), n, np.outer(b, b)) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "m", "d"), [(50, 40, 5), (6, 9, 20), (6, 90, 20), (2, 2, 3)])
def test_of_samples_fewer_or_more_than_dimensions(n, m, d):
    x, y = RNG.normal(size=(n, d)), 2 * RNG.normal(size=(m, d)) + 1
    moments = (x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T))
    assert frechet_distance(x, y) == pytest.approx(frechet_of_moments(*moments), rel=1e-5, abs=1e-6)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, x + 3) == pytest.approx(9 * d)


def test_large_samples_of_gaussians_reach_the_closed_form():
    x, y = RNG.normal(size=(20_000, 2)), RNG.normal(size=(20_000, 2)) * (2, 0.5) + (1, 0)
    assert frechet_distance(x, y) == pytest.approx(1 + 1 + 0.25, abs=0.1)


@pytest.mark.parametrize("bad", [np.zeros((1, 3)), np.full((4, 3), np.nan)])
def test_what_is_no_sample_is_refused(bad):
    with pytest.raises(ValueError, match=r"samples|finite"):
        frechet_distance(np.zeros((4, 3)), bad)


def test_inception_score_in_closed_form():
    assert inception_score(np.eye(5)) == pytest.approx(5)  # sure, and of all classes
    assert inception_score(np.full((9, 5), 0.2)) == pytest.approx(1)
    assert inception_score(np.tile([0.7, 0.3], (4, 1))) == pytest.approx(1)
    with pytest.raises(ValueError, match="no probabilities"):
        inception_score(RNG.normal(size=(3, 4)))


def test_the_error_is_that_of_samples_drawn_anew():
    def mean(x):
        return float(x.mean())

    found = with_error(mean, RNG.normal(size=(400, 1)), resamples=200)
    assert found.error == pytest.approx(1 / 20, rel=0.25)
    assert found.interval == pytest.approx((found.value - 1.96 * found.error, found.value + 1.96 * found.error))


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    found = [
        with_error(frechet_distance, rng.normal(size=(30, 2)), rng.normal(size=(20, 2)) + 5)  # of any sizes
        for _ in range(50)
    ]
    assert 0.86 <= np.mean([one.interval[0] < 50 < one.interval[1] for one in found]) < 1
    assert {one.samples for one in found} == {30}
