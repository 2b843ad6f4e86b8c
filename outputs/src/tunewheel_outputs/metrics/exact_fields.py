from __future__ import annotations

from typing import Any, cast

from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_outputs.metric import Corpus, Metric, Row, ScoreRow
from tunewheel_outputs.parsing import Unparsed, parse, same


def _scorer(task: TaskSpec, corpus: Corpus) -> ScoreRow:
    return _score


def _score(row: Row) -> float | None:
    try:
        expected = parse(row.expected)
    except Unparsed:
        return None
    try:
        return float(_holds(parse(row.output), expected))
    except Unparsed:
        return 0.0


def _holds(value: Any, expected: Any) -> bool:
    if not isinstance(expected, dict):
        return same(value, expected)
    fields = cast("dict[str, Any]", expected)
    return isinstance(value, dict) and all(
        key in value and same(value[key], wanted) for key, wanted in fields.items()
    )


METRIC = Metric(
    name="exact_fields",
    about="Share of answers in which every field of the expert's JSON is equal; more fields are allowed.",
    unit="fraction",
    test="proportion",
    ignores_text=True,
    lacks=lambda task: None if task.output_schema is not None else "output_schema",
    scorer=_scorer,
)
