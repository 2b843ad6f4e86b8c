from __future__ import annotations

import json
from typing import Literal

import pytest
from pydantic import BaseModel, Field
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_curate.examples.answer_shape import shape_of
from tunewheel_curate.examples.free_text import free_texts
from tunewheel_curate.examples.output_validation import canonical_output, validate_outputs


class Step(BaseModel):
    tool: Literal["lever", "oil"]
    say: str


class Answer(BaseModel):
    """As a user writes it; its schema refers to ``Step`` and makes what may be missing a combination."""

    reply: str
    note: str | None = None
    code: str = Field(pattern="^[A-Z]+$", default="A")
    steps: list[Step] = []
    again: Step | None = None


def texts(value: object, schema: dict[str, object]) -> dict[str, str]:
    return dict(free_texts(value, shape_of(schema)))


def test_the_schema_of_a_model_of_classes_is_followed() -> None:
    schema = Answer.model_json_schema()
    assert {"$defs", "properties"} <= schema.keys()
    value = {
        "note": "Ring.", "reply": "Oil it.", "code": "A",
        "steps": [{"say": "Now.", "tool": "oil"}], "again": {"tool": "oil", "say": "Once more."},
    }  # fmt: skip
    assert texts(value, schema) == {
        "reply": "Oil it.", "note": "Ring.", "steps.say": "Now.", "again.say": "Once more.",
    }  # fmt: skip
    spelt = json.loads(canonical_output(value, shape_of(schema)))
    assert list(spelt) == ["reply", "note", "code", "steps", "again"]
    assert [list(spelt["steps"][0]), list(spelt["again"])] == [["tool", "say"]] * 2


def test_what_stops_midway_behind_a_reference_is_dropped(records) -> None:
    task = TaskSpec(system_prompt="?", output_schema=Answer.model_json_schema())
    long = "Take the lever off, oil the spring inside the bell and put it back. " * 3
    answer = {"reply": "Oil it.", "again": {"tool": "oil", "say": long + "Then turn the"}}
    stage = validate_outputs(records({"output": json.dumps(answer)}), task)
    assert stage.funnel.reasons == {"truncated_answer: again.say": 1}


@pytest.mark.parametrize(
    ("part", "free"),
    [
        ({"type": "string"}, True),
        ({"type": ["string", "null"]}, True),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, True),
        ({"oneOf": [{"type": "string"}, {"const": None}]}, True),
        ({"if": {"minLength": 3}, "then": {"type": "string"}, "else": {"type": "string"}}, True),
        ({"allOf": [{"type": "string"}, {"enum": ["Ring."]}]}, False),
        ({"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]}, False),
        ({"type": "string", "const": "Ring."}, False),
        ({}, False),
        (True, False),
    ],
)
def test_a_text_is_free_unless_something_said_of_it_bounds_it(part: object, free: bool) -> None:
    assert texts({"a": "Ring."}, {"properties": {"a": part}}) == ({"a": "Ring."} if free else {})


def test_lists_of_given_places_and_properties_of_any_name_are_looked_into() -> None:
    text = {"type": "string"}
    assert texts({"x": "Ring."}, {"additionalProperties": text}) == {"x": "Ring."}
    pair = {"prefixItems": [{"enum": ["bell"]}], "items": text}
    assert list(free_texts(["bell", "Ring.", "Now."], shape_of(pair))) == [("", "Ring."), ("", "Now.")]


def test_a_schema_that_refers_to_itself_is_followed_as_deep_as_the_answer() -> None:
    tree = {"properties": {"say": {"type": "string"}, "next": {"$ref": "#"}}}
    value = {"say": "One.", "next": {"say": "Two.", "next": {"say": "Three."}}}
    assert texts(value, tree) == {"say": "One.", "next.say": "Two.", "next.next.say": "Three."}
