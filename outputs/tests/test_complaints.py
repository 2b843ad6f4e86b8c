"""A complaint names the field that is to be mended."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_outputs.complaints import answer_complaint

SCHEMA = {
    "type": "object",
    "properties": {
        "category": {"enum": ["billing", "solar"]},
        "reply": {"type": "string"},
        "steps": {"type": "array", "items": {"type": "integer"}},
    },
    "required": ["category", "reply"],
    "additionalProperties": False,
}
RULES = [
    {"rule": "pattern", "pattern": "^Dear", "field": "reply"},
    {"rule": "cited", "pattern": r"LM-\d+", "name": "order"},
]


def task(**fields: Any) -> TaskSpec:
    return TaskSpec.model_validate({"system_prompt": "s"} | fields)


@pytest.mark.parametrize(
    ("answer", "field", "words"),
    [
        ("  ", "output", "is empty"),
        ("Dear A", "output", "is not JSON"),
        ("[" * 100_000, "output", "is not JSON"),
        ('{"reply": "Dear A"}', "output.category", "is missing"),
        ('{"category": "roof", "reply": "Dear A"}', "output.category", "one of billing, solar"),
        ('{"category": "solar", "reply": 1}', "output.reply", "not of type 'string'"),
        ('{"category": "solar", "reply": "Dear A", "steps": [1, "b"]}', "output.steps.1", "integer"),
        ('{"category": "solar", "reply": "Dear A", "why": 1}', "output", "'why' was unexpected"),
        ('{"category": "solar", "reply": "Hi"}', "output.reply", "'pattern' (task.output_rules.0)"),
        ('{"category": "solar", "reply": "Dear A: LM-7"}', "output", "'order' (task.output_rules.1)"),
    ],
)
def test_the_field_is_named(answer: str, field: str, words: str) -> None:
    complaint = answer_complaint(task(output_schema=SCHEMA, output_rules=RULES), answer, "Where is LM-1?")
    assert complaint is not None
    assert complaint[0] == field
    assert words in complaint[1]


def test_an_answer_with_the_form_has_none() -> None:
    asked = "Where is LM-1?"
    whole = '{"category": "solar", "reply": "Dear A: LM-1 left"}'
    assert answer_complaint(task(output_schema=SCHEMA, output_rules=RULES), whole, asked) is None
    assert answer_complaint(task(), "On its way.", asked) is None
    assert answer_complaint(task(), "", asked) == ("output", "is empty; give an answer")
