"""What a dataset covers."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from tunewheel_monitor.coverage import Coverage, nearest_others, regions

RNG = np.random.default_rng(1)
CENTRES = RNG.normal(size=(10, 24))
REFERENCE = CENTRES[np.arange(400) % 10] + 0.3 * RNG.normal(size=(400, 24))
COVERAGE = Coverage.fit(REFERENCE)


def test_a_reference_is_novel_to_itself_in_one_of_twenty():
    assert COVERAGE.facts.novel_rate == 0.05
    assert COVERAGE.facts.texts == 400
    assert sum(COVERAGE.facts.cell_shares) == pytest.approx(1.0)
    assert sum(COVERAGE.facts.cell_counts) == 400
    assert sum(COVERAGE.facts.cell_points) == pytest.approx(400 * COVERAGE.facts.mean_points)


def test_more_of_the_same_is_covered_and_something_else_is_not():
    same = CENTRES[np.arange(1_000) % 10] + 0.3 * RNG.normal(size=(1_000, 24))
    other = 3 * RNG.normal(size=(200, 24))
    assert 0.02 < COVERAGE.score(same).novel.mean() < 0.1
    assert COVERAGE.score(other).novel.mean() > 0.9


def test_its_own_questions_lie_at_themselves():
    scores = COVERAGE.score(REFERENCE)
    assert np.abs(scores.novelty).max() < 1e-5
    assert not scores.novel.any()
    assert (scores.cell == COVERAGE.cells).all()


def test_a_text_without_a_known_word_is_novel():
    scores = COVERAGE.score(np.zeros((1, 24)))
    assert scores.novelty[0] == 1.0
    assert scores.novel[0]


def test_two_fits_are_the_same_and_the_facts_are_small():
    again = Coverage.fit(REFERENCE)
    assert again.facts == COVERAGE.facts
    assert (again.cells == COVERAGE.cells).all()
    assert len(json.dumps(asdict(again.facts))) < 4_000


def test_the_nearest_other_is_never_the_row_itself():
    units = np.eye(3, dtype=np.float32)[[0, 0, 1]]
    distances, neighbours, second = nearest_others(units)
    assert distances.tolist() == [0.0, 0.0, 1.0]
    assert second.tolist() == [1.0, 1.0, 1.0]
    assert neighbours[:2].tolist() == [1, 0]


def test_regions_are_numbered_without_gaps_even_where_all_rows_are_alike():
    assert regions(np.tile(np.eye(4, dtype=np.float32)[0], (30, 1)), 5).tolist() == [0] * 30
    assert sorted(set(regions(np.eye(6, dtype=np.float32), 6).tolist())) == list(range(6))
    assert max(regions(REFERENCE.astype(np.float32), 26)) < 26


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_reworded_questions_show_as_pairs(share: float):
    again = REFERENCE[: round(share * 400)] + 0.05 * RNG.normal(size=(round(share * 400), 24))
    assert COVERAGE.facts.pairs < 0.02
    assert Coverage.fit(np.concatenate([REFERENCE, again])).facts.pairs > 0.8 * 2 * share / (1 + share)


def test_two_texts_are_enough():
    assert Coverage.fit(REFERENCE[:2]).facts.texts == 2
