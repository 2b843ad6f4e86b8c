"""Drops answers that do not fit the project's schema or rules, and writes JSON answers in one canonical
form."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any

import polars as pl
from tunewheel_contracts.formats.example_formats import CleaningSpec
from tunewheel_contracts.formats.output_rules import OutputRule
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_outputs.labels import label_in
from tunewheel_outputs.parsing import Unparsed, parse
from tunewheel_outputs.rules import rule_complaints
from tunewheel_outputs.schema import SchemaCheck

from tunewheel_curate.cleaning.normalization import normalize_records, normalize_remark, normalize_text
from tunewheel_curate.cleaning.redaction import ANSWERS
from tunewheel_curate.examples.answer_shape import AnswerShape, shape_of, shape_of_answers
from tunewheel_curate.examples.formatting import asked_text
from tunewheel_curate.examples.free_text import flaw_of_texts
from tunewheel_curate.stage import Stage, drop

LONGEST_REMARK = 1_000
"""Only strings up to so many characters are cached."""
_SAID_OF_PARTS = {"$schema", "$id", "$defs", "definitions", "properties"}
"""Keywords that describe single properties, and the definitions that they refer to. ``required`` is not
one."""


def validate_outputs(records: pl.DataFrame, task: TaskSpec, cleaning: CleaningSpec = CleaningSpec()) -> Stage:
    """Drop invalid outputs, write the others as ``spelt_answers`` does, and add the column ``label``.

    Without an output schema every text is valid. The label is the whole text if an output rule restricts it
    to certain values, else the value of ``label_field`` in a JSON object.

    Reasons: ``not_json``; ``off_schema: <what>``; ``off_schema: (root) too large`` (it has a number that
    cannot be checked); and for the free text in an answer, as ``cleaning`` says, ``near_empty_answer`` and
    ``truncated_answer: <where>``.
    """
    answers, schema = records["output"], task.output_schema
    form = (SchemaCheck(schema), shape_of(schema)) if schema is not None else None
    # Validate each distinct answer once: many questions have the same answer.
    distinct = answers.unique().to_list()
    if task.label_field is None and task.is_plain_label:
        settled = {text: (text.strip(), None) for text in distinct}
    else:
        settled = {text: _validated(text, form, task, cleaning) for text in distinct}
    rows = [settled[text] for text in answers.to_list()]
    labels, reasons = ([row[place] for row in rows] for place in range(2))
    labelled = records.with_columns(pl.Series("label", labels, dtype=pl.String))
    return drop("output_validation", labelled, pl.Series(reasons, dtype=pl.String))


LONGEST_ROW = 65_536
CHARACTERS_PER_TOKEN = 16
"""A row may have ``LONGEST_ROW`` characters, or so many for each of ``max_tokens``: quotations are cut later.
A longer row is dropped unread, because its steps would take longer than a second."""


def normalize(records: pl.DataFrame, task: TaskSpec, *, min_characters: int, max_tokens: int) -> Stage:
    """Normalise questions and ``ANSWERS``; see ``normalize_records`` and ``spelt_answers``.

    Reasons: ``too_long``, and those of ``normalize_records``.
    """
    most = max(LONGEST_ROW, CHARACTERS_PER_TOKEN * max_tokens)
    sizes = records.select(pl.col("title", "input", "history", *ANSWERS).fill_null("").str.len_chars())
    too_long = pl.lit(sizes.sum_horizontal() > most)
    read = records.with_columns(
        pl.when(~too_long).then(pl.col(name)).otherwise(pl.lit("")).alias(name) for name in ("title", "input")
    ).with_columns(pl.when(~too_long).then(pl.col(name)).alias(name) for name in ANSWERS)
    spelt = [spelt_answers(read[name], task) for name in ANSWERS]
    return normalize_records(read.with_columns(spelt), too_long, min_characters=min_characters)


def check_rules(records: pl.DataFrame, rules: Sequence[OutputRule]) -> Stage:
    """Drop answers that break a rule. Reasons: ``<name of the first broken rule>: <what is wrong>``.

    Raises:
        InvalidSpec: a pattern that the engine does not know.
    """
    asked = [asked_text(*row) for row in records.select("title", "input", "history").iter_rows()]
    reasons: list[str | None] = [None] * records.height
    for rule, complaints in zip(
        rules, rule_complaints(rules, records["output"].to_list(), asked), strict=True
    ):
        for row, complaint in enumerate(complaints):
            if complaint is not None and reasons[row] is None:
                reasons[row] = f"{rule.name or rule.rule}: {complaint}"
    return drop("output_rules", records, pl.Series(reasons, dtype=pl.String))


def spelt_answers(answers: pl.Series, task: TaskSpec) -> pl.Series:
    """Return ``answers`` normalised; nulls stay. With a schema, JSON gets its canonical form; everything else
    is normalised as text.

    This must come before redaction. After redaction, nothing may decode or repair a text.
    """
    shape = shape_of_answers(task)
    distinct = answers.drop_nulls().unique(maintain_order=True)
    spelt = pl.Series([_spelt(text, shape) for text in distinct], dtype=pl.String)
    return answers.replace_strict(distinct, spelt, return_dtype=pl.String)


def _spelt(text: str, shape: AnswerShape | None) -> str:
    if shape is None:
        return normalize_text(text)
    with contextlib.suppress(Unparsed):
        return canonical_output(_normalized(parse(text)), shape)
    # A text that is not JSON may become JSON once its HTML entities are resolved.
    text = normalize_text(text)
    with contextlib.suppress(Unparsed):
        return canonical_output(_normalized(parse(text)), shape)
    return text


def with_unknown_labels(outputs: pl.Series, task: TaskSpec) -> pl.Series:
    """Return the ``outputs`` with a label that the schema does not allow. ``validate_outputs`` cannot tell:
    it names only one of several errors, and that need not be the label's."""
    if task.output_schema is None or task.label_field is None:
        return outputs.clear()
    alone = SchemaCheck({name: part for name, part in task.output_schema.items() if name in _SAID_OF_PARTS})
    distinct = outputs.unique(maintain_order=True).to_list()
    unknown = [text for text in distinct if _has_unknown_label(text, alone, task.label_field)]
    return pl.Series(outputs.name, unknown, dtype=pl.String)


def _has_unknown_label(text: str, alone: SchemaCheck, field: str) -> bool:
    try:
        value = parse(text)
        if label_in(value, field) is None:
            return False
        return alone.error({field: value[field]}) is not None
    except (Unparsed, RecursionError, ArithmeticError):
        return False


def canonical_output(value: Any, shape: AnswerShape) -> str:
    """Return ``value`` as JSON with its keys in the schema's order, then the other keys, sorted. So the model
    learns one form."""
    return _ENCODER.encode(_ordered(value, shape))


def _validated(
    text: str, form: tuple[SchemaCheck, AnswerShape] | None, task: TaskSpec, cleaning: CleaningSpec
) -> tuple[str | None, str | None]:
    try:
        value = parse(text)
    except Unparsed:
        return None, None if form is None else "not_json"
    if form is None:
        return label_in(value, task.label_field), None
    schema, shape = form
    try:
        error = schema.error(value)
    except (ArithmeticError, RecursionError):
        return None, "off_schema: (root) too large"
    if error is not None:
        where = ".".join(str(part) for part in error.absolute_path) or "(root)"
        return None, f"off_schema: {where} {error.validator}"
    flaw = flaw_of_texts(value, shape, cleaning, label_field=task.label_field)
    return label_in(value, task.label_field), flaw


_ENCODER = json.JSONEncoder(ensure_ascii=False)
"""A shared encoder: ``json.dumps`` with options of its own creates one per call."""


def _normalized(value: Any) -> Any:
    if isinstance(value, str):
        return normalize_remark(value) if len(value) <= LONGEST_REMARK else normalize_text(value)
    if isinstance(value, list):
        return [_normalized(item) for item in value]
    if isinstance(value, dict):
        return {key: _normalized(item) for key, item in value.items()}
    return value


def _ordered(value: Any, shape: AnswerShape) -> Any:
    if isinstance(value, dict):
        place = {key: number for number, key in enumerate(shape.names)}
        keys = sorted(value, key=lambda key: (place.get(key, len(place)), key))
        return {key: _ordered(value[key], shape.member(key)) for key in keys}
    if isinstance(value, list):
        return [_ordered(item, shape.item(place)) for place, item in enumerate(value)]
    return value
