"""Output rules: requirements for the form of an answer that a JSON Schema cannot express."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag

from tunewheel_contracts.fields import LinearPattern, Strict

Label = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]
FieldPath = Annotated[str, StringConstraints(pattern=r"^[^.\s][^.]{0,99}(\.[^.]{1,100}){0,9}$")]


class _Rule(Strict):
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")] | None = None
    """The rule's name in the funnel. Default: the kind of rule."""
    field: FieldPath | None = None
    """The dotted path of the property of a JSON answer that the rule checks; null: the text of the whole
    answer."""


class SectionsRule(_Rule):
    """The answer must have these Markdown headings (of any level), each with content below it."""

    rule: Literal["sections"]
    headings: Annotated[tuple[Label, ...], Field(min_length=1, max_length=50)]
    ordered: bool = True


class TableRule(_Rule):
    """The answer must have a Markdown table with these columns and at least one row."""

    rule: Literal["table"]
    columns: Annotated[tuple[Label, ...], Field(min_length=1, max_length=50)]


class PatternRule(_Rule):
    """The pattern must occur in the answer. To match the whole answer, anchor it (``^…$``)."""

    rule: Literal["pattern"]
    pattern: LinearPattern


class AllowedValuesRule(_Rule):
    """The answer, or its field, must be one of these values. In a list every item must be."""

    rule: Literal["allowed_values"]
    values: Annotated[tuple[Label, ...], Field(min_length=1, max_length=10_000)]


class CitedRule(_Rule):
    """Whatever the pattern finds in the answer, such as order numbers, must also occur in the conversation
    before it."""

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
"""The tags have the form of union branches (``rule[…]``), so that error messages leave them out of a field's
path."""
