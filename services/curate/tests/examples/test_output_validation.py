from __future__ import annotations

import json

import polars as pl
import pytest
from tunewheel_contracts.formats.example_formats import CleaningSpec
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_curate.examples.answer_shape import shape_of
from tunewheel_curate.examples.output_validation import (
    CHARACTERS_PER_TOKEN,
    LONGEST_ROW,
    canonical_output,
    normalize,
    spelt_answers,
    validate_outputs,
)
from tunewheel_curate.stage import Stage


def checked(records: pl.DataFrame, task: TaskSpec, cleaning: CleaningSpec = CleaningSpec()) -> Stage:
    """Return what is checked once it is spelt, as in a build."""
    return validate_outputs(records.with_columns(spelt_answers(records["output"], task)), task, cleaning)


GOOD = '{"reply": "Ring  twice. ", "category": "bell"}'


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("not json", "not_json"),
        ("{'category': 'bell'}", "not_json"),
        ('{"category": "bell"', "not_json"),
        ('{"category": NaN}', "not_json"),
        ("[" * 100_000, "not_json"),
        ('{"category": "gong"}', "off_schema: category enum"),
        ('{"reply": "xx"}', "off_schema: (root) required"),
        ('{"category": "bell", "reply": ""}', "off_schema: reply minLength"),
        ('{"category": "bell", "more": 1}', "off_schema: (root) additionalProperties"),
        ('"bell"', "off_schema: (root) type"),
    ],
)
def test_broken_outputs_are_dropped(records, spec, output: str, reason: str) -> None:
    stage = checked(records({"output": output}, {"output": GOOD}), spec().task)
    assert stage.funnel.reasons == {reason: 1}
    assert stage.kept.height == 1


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ('{"n": 1e999}', "not_json"),
        ('{"n": -1e999}', "not_json"),
        ('{"\\ud800": 1}', "not_json"),
        ('{"c": "\\ud800"}', "not_json"),
        ('{"n": 1' + "0" * 400 + "}", "off_schema: (root) too large"),
        ("[" * 101 + "]" * 101, "not_json"),
        ("[" * 700 + "]" * 700, "not_json"),
        ("[" * 990 + "]" * 990, "not_json"),
    ],
)
def test_what_cannot_be_judged_is_dropped_and_ends_no_build(records, output: str, reason: str) -> None:
    schema = {"properties": {"n": {"multipleOf": 0.1}}, "items": {"$ref": "#"}}
    task = TaskSpec(system_prompt="Help.", output_schema=schema, label_field=None)
    stage = checked(records({"output": output}, {"output": "{}"}), task)
    assert stage.funnel.reasons == {reason: 1}
    assert stage.kept["output"].to_list() == ["{}"]


@pytest.mark.parametrize("output", ['{"c": "\\ud800"}', "[" * 990 + "]" * 990, '{"c": 1e999}'])
def test_without_a_schema_it_is_text_without_a_label(records, output: str) -> None:
    kept = checked(records({"output": output}), TaskSpec(system_prompt="?", label_field="c")).kept
    assert (kept["output"].to_list(), kept["label"].to_list()) == ([output], [None])


def test_a_text_that_a_rule_holds_to_certain_values_is_its_own_label(records) -> None:
    rules = [{"rule": "allowed_values", "values": ["bell", "horn"]}]
    task = TaskSpec.model_validate({"system_prompt": "Which?", "output_rules": rules})
    kept = checked(records({"output": "bell"}, {"output": "horn"}), task).kept
    assert kept["label"].to_list() == ["bell", "horn"]


@pytest.mark.parametrize("output", ["[" * 100 + "]" * 100, json.dumps([{}] * 200)])
def test_answers_of_a_hundred_levels_are_read(records, output: str) -> None:
    task = TaskSpec(system_prompt="Help.", output_schema={"items": {"$ref": "#"}})
    assert checked(records({"output": output}), task).kept.height == 1


def test_good_outputs_have_one_spelling(records, spec) -> None:
    kept = checked(records({"output": GOOD}), spec().task).kept
    assert kept["output"].to_list() == ['{"category": "bell", "reply": "Ring twice."}']
    assert kept["label"].to_list() == ["bell"]


def test_nested_objects_follow_the_schema_too() -> None:
    schema = {"properties": {"b": {"items": {"properties": {"z": {}, "a": {}}}}, "a": {}}}
    spelt = canonical_output({"a": 1, "x": 2, "b": [{"a": 1, "z": 2}]}, shape_of(schema))
    assert spelt == json.dumps({"b": [{"z": 2, "a": 1}], "a": 1, "x": 2})


def test_free_text_is_valid_without_a_schema(records) -> None:
    task = TaskSpec(system_prompt="Help.")
    kept = checked(records({"output": "Ring  it."}, {"output": '{"a": 1}'}), task).kept
    assert kept["output"].to_list() == ["Ring it.", '{"a": 1}']
    assert kept["label"].to_list() == [None, None]


LONG = "Take the lever off, oil the spring inside the bell and put it back. " * 3


@pytest.mark.parametrize(
    ("texts", "policy", "reason"),
    [
        ({"reply": "..."}, {}, "near_empty_answer"),
        ({"reply": "...", "steps": [{"say": "Oil it."}]}, {}, None),
        ({"reply": ""}, {}, None),
        ({"reply": "Oil it."}, {"min_answer_characters": 20}, "near_empty_answer"),
        ({"reply": LONG + "Then turn the"}, {}, "truncated_answer: reply"),
        ({"reply": "Oil it.", "steps": [{"say": LONG}, {"say": LONG + "Then, "}]}, {},
         "truncated_answer: steps.say"),
        ({"reply": LONG + "Then turn the"}, {"truncated_answers": False}, None),
        ({"code": LONG + "Then turn the", "reply": "Oil it."}, {}, None),
        ({"reply": LONG}, {}, None),
        ({}, {}, None),
    ],
)  # fmt: skip
def test_free_text_in_structured_answers_is_looked_at(records, texts, policy, reason) -> None:
    text = {"type": "string"}
    step = {"type": "object", "properties": {"say": text}}
    properties = {"reply": text, "steps": {"type": "array", "items": step}, "code": text | {"pattern": "."}}
    task = TaskSpec(system_prompt="?", output_schema={"type": "object", "properties": properties})
    frame = records({"output": json.dumps(texts)})
    stage = checked(frame, task, CleaningSpec.model_validate(policy))
    assert stage.funnel.reasons == ({reason: 1} if reason else {})


@pytest.mark.parametrize("place", ["title", "input", "history", "output", "rejected_output"])
@pytest.mark.parametrize("max_tokens", [100, LONGEST_ROW])
def test_a_row_that_is_too_long_is_dropped_unread(place: str, max_tokens: int) -> None:
    most = max(LONGEST_ROW, CHARACTERS_PER_TOKEN * max_tokens)
    whole = {"title": "", "input": "what?", "history": None, "output": "yes", "rejected_output": None}
    rest = sum(len(text or "") for name, text in whole.items() if name != place)
    rows = [whole | {"record_id": f"r{n}", place: "x" * (most - rest + n)} for n in (0, 1)]
    records = pl.DataFrame(rows, schema_overrides={"history": pl.String, "rejected_output": pl.String})
    task = TaskSpec(system_prompt="Answer.")
    stage = normalize(records, task, min_characters=3, max_tokens=max_tokens)
    assert stage.kept["record_id"].to_list() == ["r0"]
    assert stage.dropped["reason"].to_list() == ["too_long"]
