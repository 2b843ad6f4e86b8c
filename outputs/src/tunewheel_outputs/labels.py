"""Reads and compares the labels of answers. All code that names a label as text takes it from here."""

from __future__ import annotations

import json
from typing import Any

from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_outputs.parsing import Unparsed, parse, same


def label_of(answer: str, task: TaskSpec) -> str | None:
    """Return the label of ``answer`` as text: the value of the label field, or the whole answer if a rule
    restricts free text to certain values. None: the answer has no label."""
    if task.label_field is None:
        return (answer.strip() or None) if task.is_plain_label else None
    try:
        return label_in(parse(answer), task.label_field)
    except Unparsed:
        return None


def label_in(value: Any, label_field: str | None) -> str | None:
    """Return the label in a parsed answer as text. None: it has no such field, or the field is null."""
    if label_field is None or not isinstance(value, dict) or value.get(label_field) is None:
        return None
    return label_text(value[label_field])


def label_text(label: Any) -> str:
    """Return a JSON value as the text of a label: ``true``, ``0.5``; 1.0 gives ``1``, since JSON Schema
    treats both as equal."""
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return label if isinstance(label, str) else json.dumps(label, sort_keys=True, ensure_ascii=False)


def labels_in_schema(task: TaskSpec) -> list[str]:
    """Return the labels that the answers' schema lists, as text and without null. Empty: the schema lists
    none."""
    if task.label_field is None or task.output_schema is None:
        return []
    described = task.output_schema["properties"][task.label_field]
    values = described.get("enum", ()) if isinstance(described, dict) else ()
    return [label_text(value) for value in values if value is not None]


def same_label(answer: str, expected: str, label_field: str) -> bool:
    """Return whether both answers have a label, and the labels are the same JSON value. Null is one."""
    try:
        left, right = parse(answer), parse(expected)
    except Unparsed:
        return False
    if not isinstance(left, dict) or not isinstance(right, dict):
        return False
    return label_field in left and label_field in right and same(left[label_field], right[label_field])
