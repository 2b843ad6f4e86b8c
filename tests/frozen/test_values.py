"""Further documents use the fields and values that the examples leave out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from .values import document, places, using_everything


class Part(BaseModel):
    kind: Literal["small", "large"]
    names: list[Literal["one", "two"]] = []


class Whole(BaseModel):
    part: Part | None = None
    parts: dict[str, Part] = {}
    count: Annotated[int, Field(ge=3)] = 3
    code: Annotated[str | None, Field(pattern=r"^[a-f]{4}$")] = None
    forbidden: str | None = None

    @model_validator(mode="after")
    def _has_nothing_forbidden(self) -> Whole:
        if self.forbidden is not None:
            raise ValueError("no document has this")
        return self


def test_documents_use_every_place_that_the_model_accepts() -> None:
    empty = document(Whole, {})
    made = using_everything(Whole, [empty])
    used = set[object]().union(*(one.uses for one in made))
    assert places(Whole) - used == {("Whole.forbidden", "")}
    assert ("Part.kind", "large") in used
    assert ("Part.names", "two") in used
    assert all(Whole.model_validate(one.content) for one in made)


def test_values_of_other_documents_are_tried_first() -> None:
    donor = document(Whole, {"code": "beef", "count": 9})
    made = using_everything(Whole, [document(Whole, {})], [donor])
    assert {one.content.get("code") for one in made} >= {"beef"}
    assert {one.content.get("count") for one in made} >= {9}


def test_a_field_that_is_null_is_not_used() -> None:
    assert ("Whole.part", "") not in document(Whole, {"part": None}).uses
    assert document(Whole, {"parts": {"a": {"kind": "small"}}}).uses["Part.kind", "small"] == (
        "parts",
        "a",
        "kind",
    )
