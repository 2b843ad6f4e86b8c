from __future__ import annotations

import numpy as np
import pytest
from tunewheel_eval.calibration import MOST_BINS, calibration


@pytest.mark.parametrize(("rows", "bins"), [(1, 1), (9, 1), (25, 2), (200, 20), (3_000, 20)])
def test_bins_hold_all_rows_and_about_equally_many(rows: int, bins: int):
    sure = np.random.default_rng(rows).random(rows)
    right = (sure > 0.5).astype(float)
    found = calibration([*sure], right)
    assert len(found) == bins <= MOST_BINS
    assert sum(one.rows for one in found) == rows
    assert sum(one.right for one in found) == right.sum()
    assert max(one.rows for one in found) - min(one.rows for one in found) <= 1
    assert [one.confidence for one in found] == sorted(one.confidence for one in found)


def test_rows_that_an_earlier_release_measured_are_left_out():
    (only,) = calibration([None, 0.25, None, 0.75], np.array([1.0, 0.0, 1.0, 1.0]))
    assert (only.rows, only.right, only.confidence) == (2, 1, 0.5)
    assert calibration([None, None], np.array([1.0, 0.0])) == ()
