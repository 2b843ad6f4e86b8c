from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_monitor.answers import Task, Tasks, invented, repetition

from .conftest import spec_of

SCHEMA = {"type": "object", "properties": {"category": {}}}


def task(**changes: Any) -> TaskSpec:
    return TaskSpec.model_validate({"system_prompt": "Answer."} | changes)


@pytest.mark.parametrize(
    ("answer", "share"),
    [("", 0.0), ("one two three", 0.0), ("a b c d e f", 0.0), ("a b c d " * 3, 5 / 9)],
)
def test_repetition_is_the_share_of_word_groups_that_come_again(answer: str, share: float) -> None:
    assert repetition(answer) == pytest.approx(share)


def test_names_that_nobody_named_are_invented() -> None:
    terms = frozenset({"lm-0042", "warranty"})
    assert invented("Order LM-0042 is under warranty.", "", terms) == 0
    assert invented("Order LM-0099 costs 350 EUR, ask Mr. Smith.", "What is LM-0099?", terms) == 3
    assert invented('{"order": "LM-0099"}', "", terms) == 1


def test_only_what_is_a_label_is_told() -> None:
    listed = {"type": "object", "properties": {"category": {"enum": ["bell", 1]}}}
    rule = {"rule": "allowed_values", "values": ["bell"]}
    by_field: dict[str, Any] = {"output_schema": SCHEMA, "label_field": "category"}
    for changes in ({"output_schema": listed}, {"output_rules": [rule | {"field": "category"}]}, {}):
        one = Task.of(task(**(by_field | changes)))
        known = frozenset(() if one.labels else ("bell",))
        assert one.label('{"category": "bell"}', known) == "bell"
        assert one.label('{"category": "Ann wrote me"}', known) is None
        assert one.label("no JSON", known) is None
    plain = Task.of(task(output_rules=[rule]))
    assert plain.label("bell ", frozenset()) == "bell"
    assert plain.label("Ann wrote me", frozenset({"Ann wrote me"})) is None


def test_an_answer_declines_by_the_task_s_own_pattern() -> None:
    assert Task.of(task(refusal="cannot help")).declines("I cannot help.") is True
    assert Task.of(task(refusal="cannot help")).declines("Oil it.") is False
    assert Task.of(task()).declines("I cannot help.") is None


def test_a_task_is_prepared_again_where_its_spec_changed() -> None:
    tasks = Tasks()
    first = tasks.of(spec_of())
    assert tasks.of(spec_of()) is first
    assert tasks.of(spec_of(drift={"window": 30})) is not first
