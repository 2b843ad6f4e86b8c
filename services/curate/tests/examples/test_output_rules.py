from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter
from tunewheel_contracts.formats.output_rules import OutputRule
from tunewheel_curate.examples.output_validation import check_rules

RULES: TypeAdapter[tuple[OutputRule, ...]] = TypeAdapter(tuple[OutputRule, ...])


def reason(records, output: str, *rules: dict[str, Any], **row: Any) -> str | None:
    stage = check_rules(records({"output": output} | row), RULES.validate_python(rules))
    assert stage.kept.height + stage.dropped.height == 1
    return None if stage.dropped.is_empty() else stage.dropped["reason"][0]


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
