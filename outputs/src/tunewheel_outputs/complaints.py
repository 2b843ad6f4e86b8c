"""Explains what is wrong with one answer that a person enters, and names the field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_outputs.form import AnswerForm
from tunewheel_outputs.parsing import Unparsed, parse
from tunewheel_outputs.schema import SchemaCheck

if TYPE_CHECKING:
    from jsonschema import ValidationError

ANSWER = "output"
"""The field name of the whole answer."""
LONGEST_REASON = 300


def answer_complaint(task: TaskSpec, answer: str, asked: str) -> tuple[str, str] | None:
    """Return field and reason of the first requirement of the task that ``answer`` breaks; None: it breaks
    none.

    Args:
        asked: the conversation before the answer, as one text.

    The field is ``output``, or the path of a property below it, such as ``output.category``.
    """
    if not answer.strip():
        return ANSWER, "is empty; give an answer"
    if task.output_schema is not None and (found := _schema_complaint(task.output_schema, answer)):
        return found
    for broken in AnswerForm(task).violations(answer, asked):
        number = int(broken.rpartition(".")[2])
        rule = task.output_rules[number]
        field = ANSWER if rule.field is None else f"{ANSWER}.{rule.field}"
        return field, f"breaks the rule {rule.name or rule.rule!r} (task.{broken}); correct it"
    return None


def _schema_complaint(schema: dict[str, Any], answer: str) -> tuple[str, str] | None:
    try:
        error = SchemaCheck(schema).error(parse(answer))
    except Unparsed as unparsed:
        return ANSWER, f"is not JSON: {unparsed}"
    except (ArithmeticError, RecursionError):
        return ANSWER, "is nested too deeply, or has a number too large, to be checked; simplify it"
    return None if error is None else _told(error)


def _told(error: ValidationError) -> tuple[str, str]:
    path = [ANSWER, *map(str, error.absolute_path)]
    if error.validator == "required":
        given: Any = error.instance
        wanted: Any = error.validator_value
        return ".".join([*path, next(name for name in wanted if name not in given)]), "is missing; give it"
    if error.validator == "enum":
        values: Any = error.validator_value
        return ".".join(path), f"must be one of {', '.join(map(str, values))}"[:LONGEST_REASON]
    return ".".join(path), error.message[:LONGEST_REASON]
