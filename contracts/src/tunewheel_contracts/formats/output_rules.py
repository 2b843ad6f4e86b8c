"""What an answer must look like beyond its JSON Schema: the form that the instructions ask for."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag

from tunewheel_contracts.fields import LinearPattern, Strict

Label = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]
FieldPath = Annotated[str, StringConstraints(pattern=r"^[^.\s][^.]{0,99}(\.[^.]{1,100}){0,9}$")]


class _Rule(Strict):
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")] | None = None
    """What the funnel calls it; without one, the kind of rule."""
    field: FieldPath | None = None
    """The property of a JSON answer that it is about, dotted; null: the whole answer's text."""


class SectionsRule(_Rule):
    """The answer has these Markdown headings (of any level), each with something below it."""

    rule: Literal["sections"]
    headings: Annotated[tuple[Label, ...], Field(min_length=1, max_length=50)]
    ordered: bool = True


class TableRule(_Rule):
    """The answer has a Markdown table with these columns, and at least one row."""

    rule: Literal["table"]
    columns: Annotated[tuple[Label, ...], Field(min_length=1, max_length=50)]


class PatternRule(_Rule):
    """The pattern is found in the answer; anchor it (``^…$``) to hold the whole of it to the pattern."""

    rule: Literal["pattern"]
    pattern: LinearPattern


class AllowedValuesRule(_Rule):
    """The answer, or its field, is one of these; of a list, every item is."""

    rule: Literal["allowed_values"]
    values: Annotated[tuple[Label, ...], Field(min_length=1, max_length=10_000)]


class CitedRule(_Rule):
    """What the pattern finds in the answer (order numbers, say) also stands in the conversation before it."""

    rule: Literal["cited"]
    pattern: LinearPattern


def _kind(value: Any) -> str:
    try:
        kind = value["rule"]
    except (TypeError, KeyError):
        kind = getattr(value, "rule", None)
    return f"rule[{kind}]"


OutputRule = Annotated[
    Annotated[SectionsRule, Tag("rule[sections]")]
    | Annotated[TableRule, Tag("rule[table]")]
    | Annotated[PatternRule, Tag("rule[pattern]")]
    | Annotated[AllowedValuesRule, Tag("rule[allowed_values]")]
    | Annotated[CitedRule, Tag("rule[cited]")],
    Discriminator(
        _kind,
        custom_error_type="unknown_rule",
        custom_error_message="names no known rule; say sections, table, pattern, allowed_values or cited",
    ),
]
"""Tags look like union branches (``rule[…]``) so that complaints leave them out of a field's path."""
