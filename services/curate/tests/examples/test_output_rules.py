from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.output_rules import OutputRule
from tunewheel_curate.examples.output_rules import check_rules

RULES: TypeAdapter[tuple[OutputRule, ...]] = TypeAdapter(tuple[OutputRule, ...])
REPORT = "# Cause\nrust\n\n## Steps:\n\n1. oil\n\n```\n# not a heading\n```\n"
TABLE = "see\n\n| Part | Price |\n|---|---:|\n| bell | 3 |\n"


def reason(records, output: str, *rules: dict[str, Any], **row: Any) -> str | None:
    stage = check_rules(records({"output": output} | row), RULES.validate_python(rules))
    assert stage.kept.height + stage.dropped.height == 1
    return None if stage.dropped.is_empty() else stage.dropped["reason"][0]


@pytest.mark.parametrize(
    ("output", "headings", "complaint"),
    [
        (REPORT, ["Cause", "Steps"], None),
        (REPORT, ["steps", "CAUSE"], "sections: section 'CAUSE' is out of order"),
        (REPORT, ["Cause", "not a heading"], "sections: no section 'not a heading'"),
        ("# Cause\n# Steps\ngo", ["Cause", "Steps"], "sections: section 'Cause' is empty"),
        ("# Cause\n## Steps\ngo", ["Cause", "Steps"], None),
        ("Cause", ["Cause"], "sections: no section 'Cause'"),
    ],
)
def test_sections(records, output: str, headings: list[str], complaint: str | None) -> None:
    assert reason(records, output, {"rule": "sections", "headings": headings}) == complaint


def test_sections_in_any_order(records) -> None:
    rule = {"rule": "sections", "headings": ["Steps", "Cause"], "ordered": False}
    assert reason(records, REPORT, rule) is None


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        (TABLE, None),
        (TABLE.replace("Price", "Cost"), "parts: no table with these columns and a row"),
        (TABLE.replace("| bell | 3 |\n", ""), "parts: no table with these columns and a row"),
        ("bell: 3", "parts: no table"),
        ("", "parts: no table"),
    ],
)
def test_tables(records, output: str, complaint: str | None) -> None:
    assert (
        reason(records, output, {"rule": "table", "columns": ["part", "price"], "name": "parts"}) == complaint
    )


def test_patterns_values_and_fields(records) -> None:
    answer = json.dumps({"reply": "Dear Anna", "topic": {"tags": ["bell", "horn"]}, "n": 3})
    assert reason(records, answer, {"rule": "pattern", "pattern": "^Dear ", "field": "reply"}) is None
    assert (
        reason(records, answer, {"rule": "pattern", "pattern": "^Hi", "field": "reply"})
        == "pattern: no match"
    )
    values = {"rule": "allowed_values", "values": ["bell", "horn"], "field": "topic.tags", "name": "tags"}
    assert reason(records, answer, values) is None
    assert reason(records, answer, values | {"values": ["bell"]}) == "tags: not an allowed value"
    assert reason(records, answer, values | {"values": ["3"], "field": "n"}) is None
    assert reason(records, answer, values | {"field": "topic.absent.deeper"}) is None
    assert reason(records, "refund", {"rule": "allowed_values", "values": ["refund"]}) is None


def test_cited_entities_stand_in_the_conversation(records) -> None:
    rule = {"rule": "cited", "pattern": r"\bLM-\d{4}\b", "name": "orders"}
    history = json.dumps([{"role": "user", "content": "It is LM-0002."}])
    row = {"title": "LM-0001", "input": "where is it?", "history": history}
    assert reason(records, "LM-0001 and LM-0002 left.", rule, **row) is None
    assert reason(records, "LM-0003 left.", rule, **row) == "orders: not in the input"
    assert reason(records, "It left.", rule, **row) is None


def test_the_first_broken_rule_is_named(records) -> None:
    rules = ({"rule": "pattern", "pattern": "a"}, {"rule": "pattern", "pattern": "b", "name": "b"})
    assert reason(records, "a", *rules) == "b: no match"
    assert reason(records, "c", *rules) == "pattern: no match"


def test_a_pattern_too_big_for_the_engine_is_refused(records) -> None:
    rules = RULES.validate_python(
        [{"rule": "table", "columns": ["a"]}, {"rule": "cited", "pattern": "(a{1000}){1000}"}]
    )
    for frame in (records({}), records()):
        with pytest.raises(InvalidSpec, match=r"task\.output_rules\.1\.pattern"):
            check_rules(frame, rules)


@pytest.mark.parametrize("pattern", [r"^(a+)+$", r"(a|aa)+$", r"(.*a){12}b"])
def test_patterns_that_explode_elsewhere_are_linear_here(records, pattern: str) -> None:
    assert reason(records, "a" * 50_000 + "!", {"rule": "pattern", "pattern": pattern}) == "pattern: no match"
