from __future__ import annotations

import pytest
from tunewheel_planner.advice import Approach, Change, Consistency, advise


@pytest.mark.parametrize(
    ("changes", "consistency", "approach"),
    [
        (Change.DAILY, Consistency.LOW, Approach.RAG),
        (Change.DAILY, Consistency.HIGH, Approach.HYBRID),
        (Change.WEEKLY, Consistency.MEDIUM, Approach.HYBRID),
        (Change.MONTHLY, Consistency.HIGH, Approach.FINE_TUNING),
        (Change.RARELY, Consistency.HIGH, Approach.FINE_TUNING),
        (Change.RARELY, Consistency.LOW, Approach.RAG),
    ],
)
def test_the_two_questions_decide(changes: Change, consistency: Consistency, approach: Approach) -> None:
    assert advise(changes, consistency).approach is approach


def test_every_pair_of_answers_has_a_reason() -> None:
    advice = [advise(changes, consistency) for changes in Change for consistency in Consistency]
    assert {a.approach for a in advice} == set(Approach)
    assert all(a.reason for a in advice)
