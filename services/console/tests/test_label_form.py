"""A task's answer as a form."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_console.label_queue import fields_of, values_of
from tunewheel_contracts.formats.spec import TaskSpec

SCHEMA = {
    "type": "object",
    "properties": {
        "category": {"enum": ["billing", 2]},
        "reply": {"type": "string", "description": "What the customer reads."},
        "days": {"type": "integer"},
        "urgent": {"type": "boolean"},
        "steps": {"type": "array"},
    },
    "required": ["category"],
}


def task(**fields: Any) -> TaskSpec:
    return TaskSpec.model_validate({"system_prompt": "s"} | fields)


def test_each_property_is_a_field_of_its_kind() -> None:
    fields = fields_of(task(output_schema=SCHEMA, label_field="category"))
    assert [(one.name, one.kind) for one in fields] == [
        ("category", "choice"),
        ("reply", "text"),
        ("days", "number"),
        ("urgent", "yes_no"),
        ("steps", "json"),
    ]
    assert fields[0].choices == ("billing", 2)
    assert [one.name for one in fields if one.required] == ["category"]
    assert fields[1].description == "What the customer reads."


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ({}, "text"),
        ({"output_rules": [{"rule": "allowed_values", "values": ["yes", "no"]}]}, "choice"),
        ({"output_schema": {"type": "array"}}, "json"),
        ({"output_schema": SCHEMA | {"anyOf": [{"required": ["reply"]}]}}, "json"),
    ],
)
def test_other_answers_are_one_field(spec: dict[str, Any], kind: str) -> None:
    (field,) = fields_of(task(**spec))
    assert (field.name, field.kind) == ("", kind)


@pytest.mark.parametrize(
    ("schema", "answer", "values"),
    [
        (SCHEMA, '{"category": 2, "urgent": false, "more": 1}', {"category": 2, "urgent": False, "more": 1}),
        (SCHEMA, '```json\n{"category": "billing"}\n```', {}),
        (SCHEMA, "[1]", {}),
        (SCHEMA, "no JSON", {}),
        (SCHEMA, "", {}),
        ({"type": "array"}, "[1, 2]", {"": "[1, 2]"}),
        (None, "Dear A", {"": "Dear A"}),
        (None, "", {}),
    ],
)
def test_an_answer_is_taken_apart_into_the_forms_fields(schema: Any, answer: str, values: Any) -> None:
    found = values_of(fields_of(task(**({"output_schema": schema} if schema else {}))), answer)
    assert found == values
    assert {type(value) for value in found.values()} == {type(value) for value in values.values()}
