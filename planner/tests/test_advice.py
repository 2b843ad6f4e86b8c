from __future__ import annotations

import pytest
from tunewheel_contracts.formats.retrieval_scores import Cell
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_planner.advice import FEW, Approach, Change, Consistency, advise, approach_of, held_against


@pytest.mark.parametrize(
    ("changes", "consistency", "approach"),
    [
        (Change.DAILY, Consistency.LOW, Approach.RAG),
        (Change.DAILY, Consistency.HIGH, Approach.HYBRID),
        (Change.WEEKLY, Consistency.MEDIUM, Approach.HYBRID),
        (Change.MONTHLY, Consistency.HIGH, Approach.HYBRID),
        (Change.RARELY, Consistency.MEDIUM, Approach.HYBRID),
        (Change.RARELY, Consistency.LOW, Approach.RAG),
        (Change.NO_FACTS, Consistency.HIGH, Approach.FINE_TUNING),
        (Change.NO_FACTS, Consistency.LOW, Approach.PROMPT),
    ],
)
def test_the_two_questions_decide(changes: Change, consistency: Consistency, approach: Approach) -> None:
    assert advise(changes, consistency).approach is approach


@pytest.mark.parametrize(
    ("changes", "consistency", "approach", "said"),
    [
        (Change.NO_FACTS, Consistency.HIGH, Approach.PROMPT, "199 are too few examples for fine-tuning"),
        (Change.DAILY, Consistency.MEDIUM, Approach.RAG, "199 are too few examples for hybrid"),
        (Change.DAILY, Consistency.LOW, Approach.RAG, "facts are looked up"),
    ],
)
def test_few_examples_are_prompted_with_instead_of_trained_on(
    changes: Change, consistency: Consistency, approach: Approach, said: str
) -> None:
    found = advise(changes, consistency, FEW - 1)
    assert (found.approach, found.reason[: len(said)]) == (approach, said)
    assert advise(changes, consistency, FEW) == advise(changes, consistency)


def test_every_pair_of_answers_has_a_reason() -> None:
    advice = [advise(changes, consistency) for changes in Change for consistency in Consistency]
    assert {a.approach for a in advice} == set(Approach)
    assert all(a.reason for a in advice)


FIGURES = {cell: n / 10 for n, cell in enumerate(Cell)}
BASE, RAG, TUNED, BOTH = Cell


@pytest.mark.parametrize(
    ("approach", "better", "outcome", "named"),
    [
        (Approach.HYBRID, {(BOTH, BASE), (BOTH, RAG), (BOTH, TUNED)}, "right", "all others"),
        (Approach.HYBRID, {(BOTH, BASE), (BOTH, RAG)}, "undecided", "tuned_with_passages or tuned is"),
        (Approach.HYBRID, {(TUNED, BOTH), (BOTH, BASE)}, "wrong", "tuned is shown to be better than tuned_w"),
        (Approach.FINE_TUNING, {(BOTH, TUNED)}, "wrong", "tuned_with_passages is shown"),
        (Approach.RAG, {(TUNED, BOTH), (TUNED, BASE)}, "undecided", "base or tuned or tuned_with"),
        (Approach.HYBRID, set(), "undecided", "rouge_l: base 0, base_with_passages 0.1, tuned 0.2"),
    ],
)
def test_advice_is_held_against_what_was_shown(
    approach: Approach, better: set[tuple[Cell, Cell]], outcome: str, named: str
) -> None:
    trained = approach is Approach.HYBRID
    found = held_against(approach, better, FIGURES, metric="rouge_l", trained_with_passages=trained)
    assert (found.approach, found.outcome) == (approach, outcome)
    assert named in found.reason


@pytest.mark.parametrize(
    ("approach", "winner", "mend"),
    [
        (Approach.HYBRID, TUNED, "trained without passages"),
        (Approach.FINE_TUNING, BOTH, "trained with passages"),
    ],
)
def test_advice_is_not_called_wrong_by_an_adapter_that_was_trained_otherwise(
    approach: Approach, winner: Cell, mend: str
) -> None:
    own = BOTH if approach is Approach.HYBRID else TUNED
    trained = approach is Approach.FINE_TUNING
    found = held_against(approach, {(winner, own)}, FIGURES, metric="rouge_l", trained_with_passages=trained)
    assert found.outcome == "undecided"
    assert mend in found.reason
    assert "retrieval.training" in found.reason


@pytest.mark.parametrize(
    ("retrieval", "approach"),
    [(None, Approach.FINE_TUNING), ({"default": "off"}, Approach.FINE_TUNING), ({}, Approach.HYBRID)],
)
def test_a_spec_follows_the_advice_by_what_it_serves(
    retrieval: dict[str, str] | None, approach: Approach
) -> None:
    spec = {
        "project": "desk", "base_model": "b", "task": {"system_prompt": "s"}, "retrieval": retrieval,
        "criteria": [{"metric": "rouge_l", "minimum": 0.1}],
    }  # fmt: skip
    assert approach_of(ProjectSpec.model_validate(spec)) is approach
