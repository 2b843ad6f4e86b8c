from __future__ import annotations

import sys
from datetime import UTC, datetime
from types import ModuleType
from typing import Annotated, Generic, TypeVar, cast

import pytest
from pydantic import Field, TypeAdapter, ValidationError
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.fields import (
    ArtifactRef,
    Frozen,
    JsonObject,
    LinearPattern,
    RelativePath,
    Slug,
    SourceId,
    Timestamp,
    shared,
)

T = TypeVar("T")
PATH: TypeAdapter[str] = TypeAdapter(RelativePath)
SLUG: TypeAdapter[str] = TypeAdapter(Slug)
SOURCE: TypeAdapter[str] = TypeAdapter(SourceId)
TIME: TypeAdapter[datetime] = TypeAdapter(Timestamp)
JSON: TypeAdapter[dict[str, object]] = TypeAdapter(JsonObject)
PATTERN: TypeAdapter[str] = TypeAdapter(LinearPattern)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x", "a/../../x", "C:/x", "C:\\x", "a\\..\\x", "a\x00b", "", "s3://bucket/x"]
)
def test_a_path_that_leaves_its_root_is_refused(path: str) -> None:
    with pytest.raises(ValidationError):
        PATH.validate_python(path)


@pytest.mark.parametrize("path", ["a", "a/b.md", "sops/07 battery.md", "..a/b", "Größe.md"])
def test_a_path_below_its_root_is_kept(path: str) -> None:
    assert PATH.validate_python(path) == path


@pytest.mark.parametrize("name", ["", "A", ".x", "-x", "a/b", "a b", "x" * 64, "a\n"])
def test_a_name_that_is_unsafe_as_path_or_key_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        SLUG.validate_python(name)


@pytest.mark.parametrize("value", ["", "a\nb", "a\x7f", "x" * 257])
def test_a_source_id_with_control_characters_is_refused(value: str) -> None:
    with pytest.raises(ValidationError):
        SOURCE.validate_python(value)


@pytest.mark.parametrize("text", ["2026-03-01T12:00:00", "2026-03-01T12:00:00Z", "2026-03-01T13:00:00+01:00"])
def test_every_machine_reads_a_time_alike(text: str) -> None:
    assert TIME.validate_python(text) == datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_json_objects_hold_only_what_json_can_say() -> None:
    assert JSON.validate_python({"a": None}) == {"a": None}
    with pytest.raises(ValidationError, match="NaN"):
        JSON.validate_python({"a": [float("nan")]})


def test_a_value_cannot_be_changed() -> None:
    ref = ArtifactRef(path="a", sha256="0" * 64, size_bytes=0)
    with pytest.raises(ValidationError):
        ref.path = "b"


@pytest.mark.parametrize(
    "pattern",
    [
        r"\b[A-Z]{2}-\d{4}\b",
        r"^(?:yes|no)$",
        r"(?i)order\s+#?(\d+)",
        r"\(?=",
        r"[(?=]x",
        r"\\+",
        r"\p{Lu}+\w+",
        r"\d+\s+\w*[a-z]+[0-9]+$",
        r"(?<name>a)",
    ],
)
def test_a_pattern_for_a_linear_engine_is_kept(pattern: str) -> None:
    assert PATTERN.validate_python(pattern) == pattern


@pytest.mark.parametrize(
    ("pattern", "word"),
    [
        (r"(a)\1", "linear"),
        (r"(?P<x>a)(?P=x)", "linear"),
        (r"(?<=a)b", "linear"),
        (r"a(?!b)", "linear"),
        (r"a++", "linear"),
        (r"(?>a)", "linear"),
        (r"(a)?(?(1)b|c)", "linear"),
        ("[a", "not a regular expression"),
        ("a{99999999999999999999}", "not a regular expression"),
        ("", "at least 1"),
        ("a" * 513, "at most 512"),
    ],
)
def test_a_pattern_that_needs_backtracking_is_refused(pattern: str, word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        PATTERN.validate_python(pattern)


class Source:
    """Has a field of an ``ArtifactRef``, one that is computed, one that cannot be, and something else."""

    more = 1

    def __init__(self) -> None:
        self.computed, self.path = 0, "a"

    @property
    def sha256(self) -> str:
        self.computed += 1
        return "0" * 64


class Broken(Source):
    @property
    def size_bytes(self) -> int:
        raise AttributeError("a bug")


def test_fields_of_the_same_name_are_shared_and_computed_once() -> None:
    source, whole = Source(), ArtifactRef(path="b", sha256="1" * 64, size_bytes=2)
    assert shared(ArtifactRef, source) == {"path": "a", "sha256": "0" * 64}
    assert source.computed == 1
    assert ArtifactRef(**shared(ArtifactRef, source, whole)) == whole
    assert shared(ArtifactRef, whole, source) == {"path": "a", "sha256": "0" * 64, "size_bytes": 2}


def test_a_field_whose_value_fails_is_not_left_out() -> None:
    with pytest.raises(AttributeError, match="a bug"):
        shared(ArtifactRef, Broken())


class Wheel(Frozen):
    radius: int
    """In metres,
    from the axle."""
    spokes: Annotated[int, Field(description="How many.")] = 8
    """Not this text."""
    maker: Annotated[ArtifactRef | None, Field(alias="from")] = None
    """Who made the wheel."""
    rim: str = ""

    turns: int = 0
    "Since it was made."


class SmallWheel(Wheel, Generic[T]):
    radius: int = 1
    load: T
    """What lies on the wheel."""


def described(model: type[Frozen]) -> dict[str, str]:
    fields = model.model_json_schema()["properties"]
    return {name: field["description"] for name, field in fields.items() if "description" in field}


def test_the_text_below_a_field_describes_it_in_a_schema() -> None:
    texts = {
        "radius": "In metres,\nfrom the axle.",
        "spokes": "How many.",
        "from": "Who made the wheel.",
        "turns": "Since it was made.",
    }
    assert described(Wheel) == texts
    assert described(SmallWheel[int]) == texts | {"load": "What lies on the wheel."}
    assert described(Page[Wheel]).keys() == {"next", "total"}


def test_a_model_without_source_has_a_schema_without_descriptions() -> None:
    typed = ModuleType("typed_in")
    names = {"__name__": "typed_in", "Frozen": Frozen}
    sys.modules["typed_in"] = typed
    try:
        exec("class Typed(Frozen):\n    name: str\n    '''The name.'''", names)
        assert described(cast(type[Frozen], names["Typed"])) == {}
    finally:
        del sys.modules["typed_in"]
    assert described(cast(type[Frozen], names["Typed"])) == {}, "a file that was run without being imported"
