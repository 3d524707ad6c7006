"""Bootstrap intervals of means over groups."""

import numpy as np
import pytest

from unleak.measure.intervals import FEWEST, mean_of


def test_groups_weigh_the_same():
    found = mean_of({"a": [1.0, 3.0], "b": [4.0], "c": [], "d": [6.0], "e": [8.0]})
    assert (found.value, found.groups) == (5.0, 4)
    assert 2 <= found.low < 5 < found.high <= 8


def test_few_groups_have_no_bounds():
    found = mean_of(list(range(FEWEST - 1)))
    assert (found.low, found.high) == (-np.inf, np.inf)
    assert str(found) == "1.00"
    assert found.record["low"] is None
    assert np.isfinite(mean_of(list(range(FEWEST))).low)


@pytest.mark.parametrize("bad", [[], [1.0, np.nan], [np.inf]])
def test_what_has_no_mean_is_refused(bad):
    with pytest.raises(ValueError, match="finite"):
        mean_of(bad)
