"""The free text in structured answers, such as the ``reply`` beside a label."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from tunewheel_contracts.formats.example_formats import CleaningSpec

from tunewheel_curate.cleaning.truncation import is_truncated

_BOUNDED = {"enum", "const", "pattern", "format"}


def is_free_text(schema: Any) -> bool:
    """Tell whether ``schema`` is that of a text in nobody's words but the writer's."""
    return isinstance(schema, dict) and schema.get("type") == "string" and not schema.keys() & _BOUNDED


def free_texts(value: Any, schema: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path and the words of every free text in ``value``, which fits ``schema``. What a reference
    or a combination (``anyOf``) describes is not looked into."""
    if not isinstance(schema, dict):
        return
    if isinstance(value, str):
        if is_free_text(schema):
            yield where, value
    elif isinstance(value, dict):
        for name, inner in schema.get("properties", {}).items():
            yield from free_texts(value.get(name), inner, f"{where}.{name}" if where else name)
    elif isinstance(value, list):
        for item in value:
            yield from free_texts(item, schema.get("items"), where)


def flaw_of_texts(
    value: Any, schema: dict[str, Any], policy: CleaningSpec, *, label_field: str | None = None
) -> str | None:
    """Return why an answer says too little, or stops midway; None for a good one.

    Blank texts are for the schema to forbid (``minLength``): what is not there may well be said by one. The
    others count together, but for the label.
    """
    texts = [(where, text) for where, text in free_texts(value, schema) if text and where != label_field]
    signs = (character for _, text in texts for character in text if character.isalnum())
    least = policy.min_answer_characters
    if texts and sum(1 for _ in islice(signs, least)) < least:
        return "near_empty_answer"
    if policy.truncated_answers:
        return next((f"truncated_answer: {where}" for where, text in texts if is_truncated(text)), None)
    return None
