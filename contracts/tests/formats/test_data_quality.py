from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from tunewheel_contracts.errors import first_complaint
from tunewheel_contracts.formats.data_quality import (
    EXPECTATIONS,
    Benchmark,
    Expectation,
    PiiPattern,
    PiiPolicy,
)


def complaint(kind: type[Any], value: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value)
    return first_complaint(caught.value)


@pytest.mark.parametrize("regex", [r"\bC-\d{6}\b", r"(a+)+$", r"[A-Z]{2}\d{1,9}", r"\p{Lu}\d+"])
def test_linear_patterns_are_taken(regex: str) -> None:
    assert PiiPattern(name="CUSTOMER_ID", regex=regex).regex == regex


@pytest.mark.parametrize(
    ("regex", "why"),
    [
        (r"(?=x)y", "look-around"),
        (r"(a)\1", "backreferences are not supported"),
        ("(", "unclosed group"),
        ("a{1000}{1000}{1000}", "size limit"),
        ("a*", "matches the empty text"),
    ],
)
def test_patterns_that_could_run_away_are_refused_with_the_reason(regex: str, why: str) -> None:
    field, reason = complaint(PiiPolicy, {"patterns": [{"name": "X1", "regex": regex}]})
    assert field == "patterns.0.regex"
    assert why in reason


def test_pattern_names_are_placeholders_of_their_own() -> None:
    assert complaint(PiiPattern, {"name": "lower", "regex": "a"})[0] == "name"
    twice = [{"name": "ORDER", "regex": "a"}, {"name": "ORDER", "regex": "b"}]
    assert "'ORDER' twice" in complaint(PiiPolicy, {"patterns": twice})[1]
    taken = [{"name": "IP_ADDRESS", "regex": "a"}]
    assert "'IP_ADDRESS' twice" in complaint(PiiPolicy, {"patterns": taken})[1]


def test_a_benchmark_has_one_source() -> None:
    assert Benchmark(name="mine", texts=("one",)).path is None
    assert Benchmark(name="mine", path="benchmarks/mine.jsonl").field == "text"
    for value in ({"name": "mine"}, {"name": "mine", "path": "a.jsonl", "texts": ["b"]}):
        field, reason = complaint(Benchmark, value)
        assert (field, reason) == ("path", "and texts: give one of the two")
    assert complaint(Benchmark, {"name": "mine", "path": "../secrets"})[0] == "path"


def test_an_expectation_is_taken_as_great_expectations_writes_it() -> None:
    expected = Expectation.model_validate(
        {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "tokens", "max_value": 400.5}}
    )
    assert expected.action == "hold"
    assert "expect_column_values_to_be_in_set" in EXPECTATIONS


@pytest.mark.parametrize(
    ("value", "field", "why"),
    [
        ({"type": "expect_column_mean_to_be"}, "type", "expect_column_mean_to_be_between"),
        ({"type": "expect_column_values_to_match_regex"}, "type", "task.output_rules"),
        ({"type": "unexpected_rows_expectation"}, "type", "choose from"),
        ({"kwargs": {"column": "customer"}}, "kwargs.column", "question_words"),
        ({"kwargs": {"column_list": ["group", "owner"]}}, "kwargs.column_list.1", "'owner'"),
        ({"kwargs": {"column": ["label"]}}, "kwargs.column", "choose from"),
        ({"kwargs": {"row_condition": "label=='a'"}}, "kwargs.row_condition", "leave it out"),
        ({"action": "stop"}, "action", "hold"),
    ],
)
def test_an_expectation_that_runs_code_or_names_nothing_is_refused(value: Any, field: str, why: str) -> None:
    named, reason = complaint(Expectation, {"type": "expect_column_values_to_be_unique"} | value)
    assert named == field
    assert why in reason
