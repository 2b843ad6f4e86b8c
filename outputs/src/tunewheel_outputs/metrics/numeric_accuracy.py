from __future__ import annotations

import math
import re
from bisect import bisect_left
from typing import Any

from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_contracts.formats.task_spec import NumberTolerance

from tunewheel_outputs.metric import Corpus, Metric, Row, ScoreRow
from tunewheel_outputs.parsing import Unparsed, parse
from tunewheel_outputs.texts import leaves

_NUMBER = re.compile(r"(?<![\w.])[+-]?\d{1,300}(?:\.\d{1,300})?(?![\w])")
"""A number as JSON writes it. Other notations are ambiguous: 1,234 means different numbers in different
countries."""


def _scorer(task: TaskSpec, corpus: Corpus) -> ScoreRow:
    tolerance = task.number_tolerance or NumberTolerance()

    def score(row: Row) -> float | None:
        if task.output_schema is None:
            return _of_text(row.output, row.expected, tolerance)
        return _of_json(row.output, row.expected, tolerance)

    return score


def _of_json(output: str, expected: str, tolerance: NumberTolerance) -> float | None:
    try:
        wanted = _numbers_at(parse(expected))
    except Unparsed:
        return None
    if not wanted:
        return None
    try:
        said = _numbers_at(parse(output))
    except Unparsed:
        return 0.0
    right = sum(
        path in said and (said[path] == number or abs(said[path] - number) <= _reach(number, tolerance))
        for path, number in wanted.items()
    )
    return right / len(wanted)


def _of_text(output: str, expected: str, tolerance: NumberTolerance) -> float | None:
    wanted = _numbers(expected)
    if not wanted:
        return None
    said = _numbers(output)
    right = 0
    for number in wanted:
        reach = _reach(number, tolerance)
        place = bisect_left(said, number - reach)
        right += place < len(said) and said[place] <= number + reach
    return right / len(wanted)


def _numbers(text: str) -> list[float]:
    return sorted(map(float, _NUMBER.findall(text)))


def _reach(number: float, tolerance: NumberTolerance) -> float:
    relative = tolerance.relative * abs(number) if math.isfinite(number) else 0.0
    return max(tolerance.absolute, relative)


def _numbers_at(value: Any) -> dict[tuple[str | int, ...], float]:
    return {
        path: _float(leaf)
        for path, leaf in leaves(value)
        if isinstance(leaf, int | float) and not isinstance(leaf, bool)
    }


def _float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:  # Integers in JSON have no limit.
        return math.inf


METRIC = Metric(
    name="numeric_accuracy",
    about="Share of the expert's numbers that an answer has within the tolerance: at the same path in JSON, "
    "anywhere in a text. Rows whose expert gives no number do not count.",
    unit="fraction",
    lacks=lambda task: None if task.number_tolerance is not None else "number_tolerance",
    scorer=_scorer,
)
