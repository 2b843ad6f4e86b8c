"""The four cells against each other, and the advice against them: simulated, with fixed seeds."""

from __future__ import annotations

import numpy as np
import pytest
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.retrieval_scores import Cell
from tunewheel_eval.metrics import Outcomes
from tunewheel_eval.passages.cells import Cells, best_of, deciding
from tunewheel_planner.advice import Approach, held_against
from tunewheel_verdicts.significance import Scores

METRIC = "label_accuracy"


def drawn(
    rng: np.random.Generator, shares: dict[Cell, float], rows: int, *, clustered: bool = False
) -> Cells:
    """Rows are hard or easy for all cells alike. ``clustered``: each question stands there four times."""
    times = 4 if clustered else 1
    difficulty = rng.random(rows)
    answers = {
        cell: np.repeat((0.7 * rng.random(rows) + 0.3 * difficulty < share).astype(float), times)
        for cell, share in shares.items()
    }
    clusters = np.repeat(np.arange(rows), times)
    return Cells(
        {cell: Outcomes({METRIC: Scores(one)}, rows, ()) for cell, one in answers.items()}, clusters, 1
    )


def outcome(cells: Cells, approach: Approach) -> str:
    figures = {cell: cells.figures(cell)[METRIC] for cell in Cell}
    trained = approach is Approach.HYBRID
    better = cells.better(METRIC)
    return held_against(approach, better, figures, metric=METRIC, trained_with_passages=trained).outcome


@pytest.mark.parametrize("clustered", [False, True])
def test_advice_is_seldom_called_wrong_or_right_where_all_cells_are_equal(clustered: bool) -> None:
    rng = np.random.default_rng(40)
    said = [
        outcome(drawn(rng, dict.fromkeys(Cell, 0.5), 40, clustered=clustered), Approach.HYBRID)
        for _ in range(60)
    ]
    assert said.count("undecided") >= 57


def test_advice_is_called_what_it_was_where_cells_differ() -> None:
    rng = np.random.default_rng(41)
    shares = {Cell.BASE: 0.1, Cell.BASE_WITH_PASSAGES: 0.15, Cell.TUNED: 0.3, Cell.TUNED_WITH_PASSAGES: 0.85}
    cells = [drawn(rng, shares, 60) for _ in range(12)]
    assert [outcome(one, Approach.HYBRID) for one in cells].count("right") >= 10
    assert [outcome(one, Approach.FINE_TUNING) for one in cells].count("wrong") >= 10
    assert all(best_of(one.better(METRIC)) == (Cell.TUNED_WITH_PASSAGES,) for one in cells[:3])
    told = cells[0].differences(METRIC)
    assert len(told) == 6
    assert all(one.low <= one.difference <= one.high for one in told)


def test_equal_cells_are_all_best() -> None:
    equal = drawn(np.random.default_rng(42), dict.fromkeys(Cell, 0.5), 30)
    assert best_of(equal.better(METRIC)) == tuple(Cell)


@pytest.mark.parametrize(
    ("criteria", "name"),
    [
        ([{"metric": "valid_output", "minimum": 0.8}, {"metric": METRIC, "over_base": 0.1}], METRIC),
        ([{"metric": "valid_output", "minimum": 0.8}, {"metric": "rouge_l", "significance": 0.1}], "rouge_l"),
        ([{"metric": "valid_output", "minimum": 0.8}], "valid_output"),
        ([{"metric": "regression_accuracy", "over_base": 0.1}], "perplexity"),
    ],
)
def test_cells_are_compared_by_what_the_criteria_ask_an_advantage_in(
    criteria: list[dict[str, object]], name: str
) -> None:
    metrics = ["valid_output", METRIC, "rouge_l", "perplexity"]
    assert deciding([Criterion.model_validate(one) for one in criteria], metrics) == name
    assert deciding([], []) is None
