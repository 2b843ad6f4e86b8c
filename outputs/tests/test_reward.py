"""What of a project's criteria scores a single answer, as a reward."""

from __future__ import annotations

import json

import pytest
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_outputs.metric import Row
from tunewheel_outputs.metrics import known_metrics
from tunewheel_outputs.reward import guard_of, reward_parts

TASK = TaskSpec.model_validate(
    {
        "system_prompt": "Sort.", "label_field": "intent",
        "output_schema": {"type": "object", "properties": {"intent": {}}, "required": ["intent"]},
        "output_rules": [{"rule": "allowed_values", "field": "intent", "values": ["card", "cash"]}],
    }
)  # fmt: skip


def answer(intent: str) -> str:
    return json.dumps({"intent": intent})


def test_an_answer_is_scored_by_the_criteria_that_are_about_answers() -> None:
    parts = reward_parts(["label_accuracy", "perplexity", "valid_output", "label_accuracy", "unknown"], TASK)
    assert list(parts) == ["label_accuracy", "valid_output"]
    for said, scores in ((answer("card"), [1, 1]), (answer("cash"), [0, 1]), ("card", [0, 0])):
        row = Row(output=said, asked="Where is it?", expected=answer("card"))
        assert [part(row) for part in parts.values()] == scores


def test_the_experts_own_answer_has_the_full_score_by_every_metric() -> None:
    own = answer("card")
    row = Row(output=own, asked="Where is it?", expected=own)
    parts = reward_parts(known_metrics(), TASK)
    assert {"label_accuracy", "valid_output", "rouge_l", "rule_compliance", "answer_length"} <= parts.keys()
    assert not parts.keys() & {"perplexity", "judged", "regression_accuracy", "recall_at_k", "invented_terms"}
    for name, part in parts.items():
        assert part(row) in (None, pytest.approx(1.0)), name


def test_the_guard_is_the_label_where_there_is_one() -> None:
    free = TaskSpec(system_prompt="Answer.")
    assert (guard_of(TASK), guard_of(free)) == ("label_accuracy", "rouge_l")
    assert reward_parts([guard_of(free)], free)
