from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.output_rules import OutputRule
from tunewheel_outputs.rules import rule_complaints

RULES: TypeAdapter[tuple[OutputRule, ...]] = TypeAdapter(tuple[OutputRule, ...])
REPORT = "# Cause\nrust\n\n## Steps:\n\n1. oil\n\n```\n# not a heading\n```\n"
TABLE = "see\n\n| Part | Price |\n|---|---:|\n| bell | 3 |\n"


def reason(output: str, *rules: dict[str, Any], asked: str = "") -> str | None:
    """Return the first broken rule of one answer, with what is wrong."""
    checked = RULES.validate_python(rules)
    found = rule_complaints(checked, [output], [asked])
    told = [f"{rule.name or rule.rule}: {one}" for rule, (one,) in zip(checked, found, strict=True) if one]
    return told[0] if told else None


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
def test_sections(output: str, headings: list[str], complaint: str | None) -> None:
    assert reason(output, {"rule": "sections", "headings": headings}) == complaint


def test_sections_in_any_order() -> None:
    rule = {"rule": "sections", "headings": ["Steps", "Cause"], "ordered": False}
    assert reason(REPORT, rule) is None


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
def test_tables(output: str, complaint: str | None) -> None:
    assert reason(output, {"rule": "table", "columns": ["part", "price"], "name": "parts"}) == complaint


def test_patterns_values_and_fields() -> None:
    answer = json.dumps({"reply": "Dear Anna", "topic": {"tags": ["bell", "horn"]}, "n": 3})
    assert reason(answer, {"rule": "pattern", "pattern": "^Dear ", "field": "reply"}) is None
    assert reason(answer, {"rule": "pattern", "pattern": "^Hi", "field": "reply"}) == "pattern: no match"
    values = {"rule": "allowed_values", "values": ["bell", "horn"], "field": "topic.tags", "name": "tags"}
    assert reason(answer, values) is None
    assert reason(answer, values | {"values": ["bell"]}) == "tags: not an allowed value"
    assert reason(answer, values | {"values": ["3"], "field": "n"}) is None
    assert reason(answer, values | {"field": "topic.absent.deeper"}) is None
    assert reason("refund", {"rule": "allowed_values", "values": ["refund"]}) is None


def test_cited_entities_stand_in_what_was_asked() -> None:
    rule = {"rule": "cited", "pattern": r"\bLM-\d{4}\b", "name": "orders"}
    asked = "LM-0001, where is it?\n\nOr LM-0002."
    assert reason("LM-0001 and LM-0002 left.", rule, asked=asked) is None
    assert reason("LM-0003 left.", rule, asked=asked) == "orders: not in the input"
    assert reason("It left.", rule, asked=asked) is None


def test_a_pattern_too_big_for_the_engine_is_refused() -> None:
    rules = RULES.validate_python(
        [{"rule": "table", "columns": ["a"]}, {"rule": "cited", "pattern": "(a{1000}){1000}"}]
    )
    for answers in (["a"], []):
        with pytest.raises(InvalidSpec, match=r"task\.output_rules\.1\.pattern"):
            rule_complaints(rules, answers, answers)


@pytest.mark.parametrize("pattern", [r"^(a+)+$", r"(a|aa)+$", r"(.*a){12}b"])
def test_patterns_that_explode_elsewhere_are_linear_here(pattern: str) -> None:
    assert reason("a" * 50_000 + "!", {"rule": "pattern", "pattern": pattern}) == "pattern: no match"
