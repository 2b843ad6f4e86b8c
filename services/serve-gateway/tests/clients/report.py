"""Prints which features of a client work. Runs in an environment of the client's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

TOOL: dict[str, Any] = {
    "type": "function",
    "name": "find_order",
    "description": "Where an order is",
    "parameters": {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]},
}


def report(*features: Callable[[], bool]) -> None:
    """Print the outcome of each feature as JSON: true, or why it does not work."""
    found: dict[str, bool | str] = {}
    for feature in features:
        try:
            found[feature.__name__] = feature() or "another answer"
        except Exception as error:
            found[feature.__name__] = f"{type(error).__name__}: {error}"
    print(json.dumps(found))
