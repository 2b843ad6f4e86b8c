"""Does an output keep the form that the project's spec asks for?"""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable


class OutputForm:
    """Judges outputs by a JSON Schema (2020-12); without one every output that says something is valid.

    References outside the schema are never fetched. A schema that is none makes every output invalid, as it
    does in eval: such a project never gets a model into production.
    """

    def __init__(self, schema: dict[str, Any] | None) -> None:
        self._validator: Draft202012Validator | None = None
        self._broken = False
        if schema is not None:
            try:
                Draft202012Validator.check_schema(schema)
                self._validator = Draft202012Validator(schema, registry=Registry())
            except SchemaError:
                self._broken = True

    def is_valid(self, output: str) -> bool:
        if self._broken:
            return False
        if self._validator is None:
            return bool(output.strip())
        try:
            value = json.loads(output.strip(), parse_constant=_refuse)
            return self._validator.is_valid(value)
        except (ValueError, RecursionError, ArithmeticError, Unresolvable):
            return False  # ArithmeticError: a number too large for ``multipleOf``


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON (RFC 8259 §6)")
