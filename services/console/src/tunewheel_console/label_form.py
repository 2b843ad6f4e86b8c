"""Makes a form for a task's answer: one field for each property, or one for the whole answer. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from tunewheel_contracts.fields import Frozen
from tunewheel_contracts.formats.output_rules import AllowedValuesRule
from tunewheel_contracts.formats.spec import TaskSpec

Kind = Literal["choice", "text", "number", "yes_no", "json"]
WHOLE = ""
"""The name of the field that holds the whole answer."""
_KINDS: dict[Any, Kind] = {"string": "text", "number": "number", "integer": "number", "boolean": "yes_no"}
_NOT_BY_PROPERTY = {"$ref", "allOf", "anyOf", "oneOf", "not", "if", "patternProperties"}
"""Keywords of a schema with conditions that fields for its properties could not express."""


class FormField(Frozen):
    """A field of the form."""

    name: str
    """The answer's property; empty: the whole answer."""
    kind: Kind
    choices: tuple[Any, ...] = ()
    """The allowed values of a choice, as JSON."""
    required: bool = True
    description: str = ""


def fields_of(task: TaskSpec) -> tuple[FormField, ...]:
    """Return the fields of an answer, in the order of the schema's properties."""
    schema = task.output_schema
    if schema is None:
        return (_plain(task),)
    properties: Any = schema.get("properties")
    by_property = schema.get("type") == "object" and isinstance(properties, dict) and properties
    if not by_property or _NOT_BY_PROPERTY & schema.keys():
        return (FormField(name=WHOLE, kind="json"),)
    required: Any = schema.get("required", ())
    return tuple(_field(name, part, required=name in required) for name, part in properties.items())


def values_of(fields: Sequence[FormField], answer: str) -> dict[str, Any]:
    """Return the properties of ``answer``, or the answer itself as that of ``WHOLE``; none if it does not
    have the form of ``fields``."""
    from tunewheel_outputs.parsing import Unparsed, parse

    if fields[0].name == WHOLE:
        return {WHOLE: answer} if answer else {}
    try:
        value = parse(answer)
    except Unparsed:
        return {}
    return value if isinstance(value, dict) else {}


def _plain(task: TaskSpec) -> FormField:
    rules = (one for one in task.output_rules if isinstance(one, AllowedValuesRule) and one.field is None)
    rule = next(rules, None)
    return FormField(
        name=WHOLE, kind="text" if rule is None else "choice", choices=rule.values if rule else ()
    )


def _field(name: str, part: Any, *, required: bool) -> FormField:
    schema: dict[str, Any] = part if isinstance(part, dict) else {}
    about = str(schema.get("description", ""))
    choices = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    kind: Kind = "choice" if choices else _KINDS.get(str(schema.get("type")), "json")
    return FormField(name=name, kind=kind, choices=tuple(choices), required=required, description=about)
