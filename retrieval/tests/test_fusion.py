"""Reciprocal rank fusion, against sums done by hand."""

from __future__ import annotations

import pytest
from tunewheel_retrieval.fusion import fused


def test_a_row_in_both_rankings_comes_before_the_first_of_either():
    found = fused([[7, 3], [5, 3]], limit=10)
    assert [one.row for one in found] == [3, 5, 7]
    assert found[0].score == pytest.approx(1 / 62 + 1 / 62)
    assert found[0].ranks == (2, 2)
    assert [(one.score, one.ranks) for one in found[1:]] == [(1 / 61, (None, 1)), (1 / 61, (1, None))]


def test_equal_scores_come_by_their_row_and_no_more_than_asked_for():
    assert [one.row for one in fused([[9, 1], [1, 9]], limit=5)] == [1, 9]
    assert [one.row for one in fused([[4, 2, 8]], limit=2)] == [4, 2]


def test_nothing_found_is_nothing():
    assert fused([[], []], limit=3) == []
    assert fused([], limit=3) == []


def test_k_decides_how_much_the_first_place_counts():
    """Two second places beat one first place only where k is large enough."""
    rankings = [[1, 2], [3, 4, 2]]
    assert fused(rankings, limit=1, k=60)[0].row == 2
    assert fused(rankings, limit=1, k=0)[0].row == 1
