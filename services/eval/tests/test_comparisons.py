"""Who is right on the held-out rows that answer a request for labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_eval.comparisons import MOST_REQUESTS, requested_rows
from tunewheel_eval.metrics import Outcomes
from tunewheel_verdicts.measured import Measured
from tunewheel_verdicts.significance import Scores

NAN = float("nan")


def outcomes(**metrics: tuple[list[float], list[float]]) -> dict[Role, Outcomes]:
    """Return, by metric, the scores of candidate and champion."""
    return {
        role: Outcomes({name: Scores(np.array(both[side])) for name, both in metrics.items()}, 6, ())
        for side, role in enumerate((Role.CANDIDATE, Role.CHAMPION))
    }


def counts(found: Any) -> dict[str, tuple[int, ...]]:
    return {
        one.request_id: (one.prompts, one.both_right, one.only_champion, one.only_candidate) for one in found
    }


REQUESTS = ("labels-1", "labels-1", "labels-1", None, "labels-2", "labels-1")
RIGHT = outcomes(label_accuracy=([1, 1, 0, 1, 0, NAN], [1, 0, 1, 0, 0, NAN]))


def test_rows_are_paired_by_request_and_rows_that_answer_none_do_not_count() -> None:
    found = requested_rows(RIGHT, {}, REQUESTS, np.arange(6))
    assert counts(found) == {"labels-1": (3, 1, 1, 1), "labels-2": (1, 0, 0, 0)}
    assert {one.metric for one in found} == {"label_accuracy"}


def test_the_rows_of_one_customer_count_as_one() -> None:
    found = requested_rows(RIGHT, {}, REQUESTS, np.array([0, 1, 1, 2, 3, 4]))
    assert counts(found)["labels-1"] == (2, 2, 0, 0), "one row gained and one lost make no difference"


def test_without_a_champion_or_a_metric_of_right_answers_nothing_is_told() -> None:
    assert requested_rows({Role.CANDIDATE: RIGHT[Role.CANDIDATE]}, {}, REQUESTS, np.arange(6)) == ()
    assert requested_rows(outcomes(rouge_l=([1.0] * 6, [0.0] * 6)), {}, REQUESTS, np.arange(6)) == ()
    assert requested_rows(RIGHT, {}, (), np.arange(6)) == ()


def test_a_judge_tells_of_free_text_whose_answer_is_better() -> None:
    judged = Measured(
        name="judged", test="mean", lower_is_better=False, lowest=0.0, highest=1.0, on="judge",
        scores={Role.CANDIDATE: Scores(np.array([1.0, 0.5, 0.0, 1.0, 1.0, 1.0]))}, clusters=np.arange(6),
    )  # fmt: skip
    found = requested_rows(
        outcomes(rouge_l=([1.0] * 6, [0.0] * 6)), {"judged": judged}, REQUESTS, np.arange(6)
    )
    assert counts(found) == {"labels-1": (4, 1, 1, 2), "labels-2": (1, 0, 0, 1)}


def test_a_sender_of_many_names_makes_no_verdict_large() -> None:
    rows = 3 * MOST_REQUESTS
    many = outcomes(label_accuracy=([1.0] * rows, [0.0] * rows))
    found = requested_rows(many, {}, ["labels-1"] * 9 + [f"x-{n}" for n in range(rows - 9)], np.arange(rows))
    assert len(found) == MOST_REQUESTS
    assert found[0].request_id == "labels-1"
