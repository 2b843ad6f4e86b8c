from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from tunewheel_contracts.errors import first_complaint
from tunewheel_contracts.formats.output_rules import CitedRule, SectionsRule
from tunewheel_contracts.formats.spec import TaskSpec

RULES: list[dict[str, Any]] = [
    {"rule": "sections", "headings": ["Cause", "Steps"]},
    {"rule": "table", "columns": ["part", "price"], "name": "parts"},
    {"rule": "pattern", "pattern": "^Dear ", "field": "reply"},
    {"rule": "allowed_values", "values": ["low", "high"], "field": "priority"},
    {"rule": "cited", "pattern": r"\b[A-Z]{2}-\d{4}\b"},
]


def task(*rules: dict[str, Any]) -> TaskSpec:
    return TaskSpec.model_validate({"system_prompt": "Help.", "output_rules": list(rules)})


def test_each_rule_is_read_as_its_kind() -> None:
    made = task(*RULES)
    assert [rule.rule for rule in made.output_rules] == [rule["rule"] for rule in RULES]
    assert isinstance(made.output_rules[0], SectionsRule)
    assert isinstance(made.output_rules[-1], CitedRule)
    assert TaskSpec.model_validate(made.model_dump(mode="json")) == made


@pytest.mark.parametrize(
    ("rule", "field", "word"),
    [
        ({"rule": "sections", "headings": []}, "task.output_rules.1.headings", "at least 1"),
        ({"rule": "table"}, "task.output_rules.1.columns", "missing"),
        ({"rule": "pattern", "pattern": "(a)\\1"}, "task.output_rules.1.pattern", "linear"),
        ({"rule": "cited", "pattern": "a", "values": []}, "task.output_rules.1.values", "no known field"),
        ({"rule": "allowed_values", "values": ["a"], "field": "a..b"}, "task.output_rules.1.field", "match"),
        ({"rule": "poem"}, "task.output_rules.1", "sections, table"),
        ({"pattern": "a"}, "task.output_rules.1", "sections, table"),
    ],
)
def test_a_wrong_rule_is_named(rule: dict[str, Any], field: str, word: str) -> None:
    with pytest.raises(ValidationError) as caught:
        task(RULES[0], rule)
    where, reason = first_complaint(caught.value)
    assert f"task.{where}" == field
    assert word in reason
