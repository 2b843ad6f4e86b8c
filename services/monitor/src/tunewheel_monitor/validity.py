"""Does an output keep the form that the project's spec asks for?"""

from __future__ import annotations

from typing import Any

from tunewheel_outputs.schema import SchemaCheck


class OutputForm:
    """Judges outputs by a project's output schema; without one every output that says something is valid."""

    def __init__(self, schema: dict[str, Any] | None) -> None:
        self._schema = None if schema is None else SchemaCheck(schema)

    def is_valid(self, output: str) -> bool:
        return bool(output.strip()) if self._schema is None else self._schema.fits(output)
