from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_outputs.form import AnswerForm

SCHEMA = {"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]}
RULES = [
    {"rule": "pattern", "pattern": "^Dear", "field": "reply"},
    {"rule": "cited", "pattern": r"LM-\d+"},
]


def form(**task: Any) -> AnswerForm:
    return AnswerForm(TaskSpec.model_validate({"system_prompt": "s"} | task))


@pytest.mark.parametrize(
    ("answer", "valid"),
    [
        (' {"n": 1}\n', True),
        ('{"n": "1"}', False),
        ('```json\n{"n": 1}\n```', False),
        ('{"n": NaN}', False),
        ("", False),
        ("[" * 100_000, False),
    ],
)
def test_an_answer_must_fit_the_schema(answer: str, valid: bool) -> None:
    assert form(output_schema=SCHEMA).is_valid(answer, "") is valid


def test_without_schema_and_rules_every_answer_that_says_something_is_valid() -> None:
    assert form().is_valid("hello", "")
    assert not form().is_valid(" \n", "")


@pytest.mark.parametrize(
    ("answer", "held"),
    [
        ('{"reply": "Dear A, LM-1 left"}', [True, True]),
        ('{"reply": "Hi, LM-1 left"}', [False, True]),
        ('{"reply": "Dear A, LM-2 left"}', [True, False]),
        ('{"note": "no reply"}', [True, True]),
        ("Dear A, LM-1 left", [False, True]),
        ("\ud83d", [False, True]),
    ],
)
def test_every_rule_counts(answer: str, held: list[bool]) -> None:
    checked = form(output_rules=RULES)
    assert checked.held(answer, "Where is LM-1?") == held
    assert checked.is_valid(answer, "Where is LM-1?") is all(held)


def test_a_violation_is_named_by_its_place_in_the_spec() -> None:
    rules = [{"rule": "pattern", "pattern": r"\Z"}, *RULES]  # no engine knows the first
    checked = form(output_schema=SCHEMA, output_rules=rules)
    assert checked.violations('{"reply": "Hi, LM-2"}', "LM-1") == (
        "output_schema",
        "output_rules.1",
        "output_rules.2",
    )
    assert form(output_schema=SCHEMA).violations('{"n": 1}', "") == ()
    assert form().violations(" ", "") == ("empty",)


def test_a_pattern_that_no_engine_knows_ends_nothing() -> None:
    checked = form(output_rules=[{"rule": "pattern", "pattern": r"\Z"}])
    assert checked.is_valid("a", "")


def test_the_whole_answer_is_a_label_where_a_rule_lists_the_labels() -> None:
    values = {"rule": "allowed_values", "values": ["a", "b"]}
    assert TaskSpec.model_validate({"system_prompt": "s", "output_rules": [values]}).is_plain_label
    by_field = values | {"field": "category"}
    assert not TaskSpec.model_validate({"system_prompt": "s", "output_rules": [by_field]}).is_plain_label
