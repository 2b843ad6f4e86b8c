from __future__ import annotations

import json
from datetime import date, datetime
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError, model_validator
from tunewheel_contracts.errors import (
    InvalidEvent,
    InvalidSpec,
    TunewheelError,
    complaints,
    first_complaint,
    inconsistent,
)
from tunewheel_contracts.fields import Slug


class _Inner(BaseModel):
    low: int | list[str] = 0
    high: int = 1

    @model_validator(mode="after")
    def _ordered(self) -> _Inner:
        if isinstance(self.low, int) and self.low > self.high:
            raise inconsistent("low", f"{{{self.low}}} is above high; swap them")
        return self


class _Outer(BaseModel):
    inner: _Inner = _Inner()
    str: int = 0


def _complaint(data: object) -> tuple[str, str]:
    with pytest.raises(ValidationError) as caught:
        _Outer.model_validate(data)
    return first_complaint(caught.value)


def test_a_contradiction_is_placed_below_the_model_that_found_it() -> None:
    assert _complaint({"inner": {"low": 2}}) == ("inner.low", "{2} is above high; swap them")


def test_the_branches_of_a_union_are_no_fields() -> None:
    field, reason = _complaint({"inner": {"low": {}}})
    assert field == "inner.low"
    assert "more" not in reason


def test_other_wrong_fields_are_counted() -> None:
    assert _complaint({"inner": {"low": {}, "high": {}}, "str": "x"})[1].endswith("(and 2 more)")


class _Told(BaseModel):
    answer: dict[str, int] | str = ""
    turns: tuple[int, ...] = ()
    at: datetime | None = None
    mode: Literal["on", "off"] = "on"
    layers: Literal["all"] | list[str] = "all"
    rate: float = 0.5
    steps: Annotated[int, Field(gt=0, le=100)] = 1
    enabled: bool = True
    name: Slug = "a"
    code: Annotated[str, Field(pattern=r"^\d+$")] = "1"


@pytest.mark.parametrize(
    ("data", "field", "reason"),
    [
        ({"answer": 5}, "answer", "is a number; give an object in braces or text in quotes"),
        ({"answer": True}, "answer", "is true or false; give an object in braces or text in quotes"),
        ({"answer": ["a"]}, "answer", "is a list; give an object in braces or text in quotes"),
        ({"turns": "abc"}, "turns", "is text; give a list in brackets"),
        ({"turns": {}}, "turns", "is an object; give a list in brackets"),
        ([], "(body)", "is a list; give an object in braces"),
        ({"steps": "many"}, "steps", "is text; give a whole number"),
        ({"steps": 1.5}, "steps", "is a number; give a whole number"),
        ({"rate": {}}, "rate", "is an object; give a number"),
        ({"enabled": "perhaps"}, "enabled", "is text; give true or false"),
        ({"layers": 7}, "layers", "is a number; give 'all' or a list in brackets"),
        (
            {"mode": False},
            "mode",
            "is true or false (YAML reads on, off, yes and no so); give 'on' or 'off' in quotes",
        ),
        (
            {"layers": False},
            "layers",
            "is true or false (YAML reads on, off, yes and no so); "
            "give 'all' in quotes or a list in brackets",
        ),
        ({"mode": "of"}, "mode", "is not one of the known values; give 'on' or 'off'"),
        ({"steps": 0}, "steps", "is too small; give more than 0"),
        ({"steps": 101}, "steps", "is too large; give at most 100"),
        ({"code": "x"}, "code", r"does not match ^\d+$; give text of that form"),
        ({"turns": None}, "turns", "is null; give a list in brackets, or leave an optional field out"),
    ],
)
def test_a_wrong_value_is_told_what_to_give_instead(data: object, field: str, reason: str) -> None:
    for told in (data, json.dumps(data)):
        with pytest.raises(ValidationError) as caught:
            _Told.model_validate_json(told, strict=True) if isinstance(told, str) else _Told.model_validate(
                told
            )
        assert first_complaint(caught.value) == (field, reason)


@pytest.mark.parametrize("given", [date(2026, 1, 31), datetime(2026, 1, 31, 9, 30)])
def test_a_date_that_yaml_reads_without_quotes_is_called_one(given: date) -> None:
    with pytest.raises(ValidationError) as caught:
        _Told.model_validate({"name": given})
    assert first_complaint(caught.value) == ("name", "is a date; give text in quotes")


@pytest.mark.parametrize("name", ["bank/desk", "Bank", "-a", "a" * 64])
def test_the_form_of_a_name_is_said_in_words(name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        _Told.model_validate({"name": name})
    field, reason = first_complaint(caught.value)
    assert field == "name"
    assert "give a to z, 0 to 9, dots, - and _, 63 characters at most" in reason
    assert name not in reason


def test_a_time_that_is_none_is_told_how_to_be_written() -> None:
    with pytest.raises(ValidationError) as caught:
        _Told.model_validate({"at": "yesterday"})
    field, reason = first_complaint(caught.value)
    assert field == "at"
    assert reason.startswith("is not a time (Input should be a valid datetime")
    assert reason.endswith("; write it like 2026-01-31T09:30:00Z")


def test_a_field_that_is_called_like_a_type_keeps_its_name() -> None:
    assert _complaint({"str": "x"})[0] == "str"


def test_a_complaint_about_the_whole_says_so() -> None:
    assert _complaint([])[0] == "(body)"


def test_errors_show_field_and_reason() -> None:
    event = InvalidEvent(field="body", reason="is missing; add it")
    spec = InvalidSpec(field="task.label_field", reason="is missing; add it")
    assert str(event) == "body is missing; add it"
    assert str(spec) == "task.label_field: is missing; add it"
    assert isinstance(event, TunewheelError)
    assert isinstance(spec, TunewheelError)


class _Strict(BaseModel, extra="forbid"):
    name: str


def test_a_message_with_very_many_wrong_fields_takes_no_longer_for_each() -> None:
    """With the square of its fields this takes minutes, in which a service reads nothing else."""
    with pytest.raises(ValidationError) as caught:
        _Strict.model_validate({"name": "a"} | {f"unknown{n}": n for n in range(30_000)})
    found = complaints(caught.value)
    assert (found[0][0], found[-1][0], len(found)) == ("unknown0", "unknown29999", 30_000)
