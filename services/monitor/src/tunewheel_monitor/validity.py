"""Does an output keep the form that the project's spec asks for?"""

from __future__ import annotations

import json
from typing import Any

from tunewheel_contracts.formats.output_schema import answer_validator


class OutputForm:
    """Judges outputs by a project's output schema; without one every output that says something is valid."""

    def __init__(self, schema: dict[str, Any] | None) -> None:
        self._validator = None if schema is None else answer_validator(schema)

    def is_valid(self, output: str) -> bool:
        if self._validator is None:
            return bool(output.strip())
        try:
            value = json.loads(output.strip(), parse_constant=_refuse)
            return self._validator.is_valid(value)
        except (ValueError, RecursionError, ArithmeticError):
            return False  # ArithmeticError: a number too large for ``multipleOf``


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON (RFC 8259 §6)")
