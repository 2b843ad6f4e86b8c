"""One contestant's outputs against the experts': per example, and the figures over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tunewheel_contracts.formats.criteria import Metric
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.regression_items import RegressionItem
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_outputs.labels import same_label
from tunewheel_outputs.rouge import rouge_l
from tunewheel_outputs.schema import SchemaCheck

from tunewheel_eval.measurement import HoldoutRow, Measurement, RegressionRow, example_key
from tunewheel_eval.significance import Bools, Floats, Scores, perplexity


@dataclass(frozen=True)
class Outcomes:
    """Per item, shape (examples,) or (regression items,), in the same order for every contestant.

    ``valid`` and ``label_right`` are None where the project has no output schema or no label.
    """

    valid: Bools | None
    label_right: Bools | None
    rouge_l: Floats
    nll: Floats
    tokens: Floats
    regression_right: Bools
    regression_kinds: tuple[str, ...]

    def hits(self, metric: Metric) -> Bools | None:
        """Return the hits and misses behind a metric that counts them."""
        return {
            Metric.VALID_OUTPUT: self.valid,
            Metric.LABEL_ACCURACY: self.label_right,
            Metric.REGRESSION_ACCURACY: self.regression_right if len(self.regression_right) else None,
        }.get(metric)

    def scores(self, metric: str) -> Scores | None:
        """Return what a metric's figure is computed from, row by row; None where it does not apply."""
        if metric == Metric.ROUGE_L:
            return Scores(self.rouge_l)
        if metric == Metric.PERPLEXITY:
            return Scores(self.nll, self.tokens)
        hits = self.hits(Metric(metric)) if metric in set(Metric) else None
        return Scores(hits.astype(np.float64)) if hits is not None else None

    def figures(self) -> dict[str, float]:
        """Return every metric that applies, by name, with ``examples`` and ``regression_items``."""
        figures = {
            metric.value: float(np.mean(hits)) for metric in Metric if (hits := self.hits(metric)) is not None
        }
        figures[Metric.ROUGE_L.value] = float(np.mean(self.rouge_l))
        figures[Metric.PERPLEXITY.value] = perplexity(float(self.nll.sum() / self.tokens.sum()))
        figures["examples"] = float(len(self.rouge_l))
        figures["regression_items"] = float(len(self.regression_right))
        return figures

    def by_kind(self) -> dict[str, float]:
        """Return regression accuracy by kind of item."""
        kinds = np.asarray(self.regression_kinds)
        return {
            str(kind): float(np.mean(self.regression_right[kinds == kind])) for kind in sorted(set(kinds))
        }


def outcomes(
    measurement: Measurement,
    examples: Sequence[ChatExample],
    items: Sequence[RegressionItem],
    task: TaskSpec,
) -> Outcomes:
    """Judge a complete measurement.

    Raises:
        KeyError: a row is missing: the measurement is not complete.
        InvalidEvent: the project's output schema is unusable.
    """
    rows = [
        _holdout_row(measurement, example_key(example, max_output_tokens=task.max_output_tokens))
        for example in examples
    ]
    expected = [example.messages[-1].content for example in examples]
    said = [row.output for row in rows]
    regression = [_regression_row(measurement, item.key) for item in items]
    return Outcomes(
        valid=_validity(said, task),
        label_right=_labels(said, expected, task),
        rouge_l=np.array([rouge_l(ours, theirs) for ours, theirs in zip(said, expected, strict=True)]),
        nll=np.array([row.nll for row in rows]),
        tokens=np.array([row.tokens for row in rows], dtype=np.float64),
        regression_right=np.array(
            [item.is_right(row.output) for item, row in zip(items, regression, strict=True)], dtype=np.bool_
        ),
        regression_kinds=tuple(item.kind for item in items),
    )


def _validity(said: Sequence[str], task: TaskSpec) -> Bools | None:
    if task.output_schema is None:
        return None
    schema = SchemaCheck(task.output_schema)
    return np.array([schema.fits(output) for output in said], dtype=np.bool_)


def _labels(said: Sequence[str], expected: Sequence[str], task: TaskSpec) -> Bools | None:
    if task.label_field is None:
        return None
    pairs = zip(said, expected, strict=True)
    return np.array([same_label(a, b, task.label_field) for a, b in pairs], dtype=np.bool_)


def _holdout_row(measurement: Measurement, key: str) -> HoldoutRow:
    row = measurement.rows[key]
    if not isinstance(row, HoldoutRow):
        raise KeyError(key)
    return row


def _regression_row(measurement: Measurement, key: str) -> RegressionRow:
    row = measurement.rows[key]
    if not isinstance(row, RegressionRow):
        raise KeyError(key)
    return row
