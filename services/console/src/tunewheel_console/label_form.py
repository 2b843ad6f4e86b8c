"""Makes a form for a task's answer: one field for each property, or one for the whole answer. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Literal

from tunewheel_contracts.fields import Frozen
from tunewheel_contracts.formats.output_rules import AllowedValuesRule
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_runtime.refusals import Refused

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


def answer_of(task: TaskSpec, values: Mapping[str, Any]) -> str:
    """Return the answer, as text, made of the fields' ``values``. Empty fields are left out.

    Raises:
        Refused: a value cannot be read as its field's kind; the field is named.
    """
    fields = fields_of(task)
    if fields[0].name == WHOLE:
        return str(values.get(WHOLE) or "")
    texts = {one.name: _value(one, values.get(one.name)) for one in fields if _is_given(values.get(one.name))}
    return json.dumps(texts, ensure_ascii=False)


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


def _is_given(value: Any) -> bool:
    return value is not None and not (isinstance(value, str) and not value.strip())


def _value(field: FormField, value: Any) -> Any:
    if field.kind not in ("number", "json") or not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        wanted = "a number" if field.kind == "number" else f"JSON ({error})"
        raise Refused(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"output.{field.name}", f"is not {wanted}; correct it"
        ) from error
