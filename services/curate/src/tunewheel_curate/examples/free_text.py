"""Finds the free text in structured answers, such as a ``reply`` beside a label."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from tunewheel_contracts.formats.example_formats import CleaningSpec

from tunewheel_curate.cleaning.tickets import is_truncated
from tunewheel_curate.examples.answer_shape import AnswerShape


def is_free_text(shape: AnswerShape) -> bool:
    """Return whether ``shape`` is free text: a string without listed values, a pattern or a format."""
    return any(map(_is_text, shape.parts)) and not any(map(_is_bounded, shape.parts))


def _is_text(part: dict[str, Any]) -> bool:
    kind = part.get("type")
    return "string" in kind if isinstance(kind, list) else kind == "string"


def _is_bounded(part: dict[str, Any]) -> bool:
    allowed = [*part.get("enum", ()), part.get("const")]
    return "pattern" in part or "format" in part or any(isinstance(value, str) for value in allowed)


def free_texts(value: Any, shape: AnswerShape, where: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path and the words of every free text in ``value``, which is of that ``shape``."""
    if isinstance(value, str):
        if is_free_text(shape):
            yield where, value
    elif isinstance(value, dict):
        for name in dict.fromkeys([*shape.names, *value]):
            yield from free_texts(value.get(name), shape.member(name), f"{where}.{name}" if where else name)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from free_texts(item, shape.item(place), where)


def without_free_text(value: Any, shape: AnswerShape) -> Any:
    """Return ``value``, which is of that ``shape``, with null for every free text in it."""
    if isinstance(value, str):
        return None if is_free_text(shape) else value
    if isinstance(value, dict):
        return {name: without_free_text(part, shape.member(name)) for name, part in value.items()}
    if isinstance(value, list):
        return [without_free_text(item, shape.item(place)) for place, item in enumerate(value)]
    return value


def flaw_of_texts(
    value: Any, shape: AnswerShape, policy: CleaningSpec, *, label_field: str | None = None
) -> str | None:
    """Return why an answer is too short or truncated; None: it is neither.

    A blank text is no flaw: it may mean "nothing", and a schema can forbid it (``minLength``). The lengths of
    the other texts, without the label, are added.
    """
    texts = [(where, text) for where, text in free_texts(value, shape) if text and where != label_field]
    signs = (character for _, text in texts for character in text if character.isalnum())
    least = policy.min_answer_characters
    if texts and sum(1 for _ in islice(signs, least)) < least:
        return "near_empty_answer"
    if policy.truncated_answers:
        return next((f"truncated_answer: {where}" for where, text in texts if is_truncated(text)), None)
    return None
