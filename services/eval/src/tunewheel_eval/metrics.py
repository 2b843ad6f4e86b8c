"""One contestant's outputs against the experts': each metric row by row, and the figures over all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from tunewheel_contracts.formats.confidence import Calibration
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.regression_items import RegressionItem
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_outputs.labels import label_of
from tunewheel_outputs.metric import Corpus, Metric, Score, ScoreRow
from tunewheel_outputs.metric import Row as Answered
from tunewheel_outputs.metrics import find_metric, metrics_for
from tunewheel_outputs.texts import said_before
from tunewheel_verdicts.significance import Scores

from tunewheel_eval.calibration import calibrated
from tunewheel_eval.lm_eval_tasks import AskedTask
from tunewheel_eval.measurement import HoldoutRow, LmEvalRow, Measurement, RegressionRow, example_key

LABELS = "label_accuracy"


@dataclass(frozen=True)
class Outcomes:
    """Per item, in the same order for every contestant."""

    by_metric: Mapping[str, Scores]
    """By name; shape (examples,), (regression items,) or (questions of a task,), as the metric says. A row
    that a metric says nothing about is NaN; which ones they are depends on the expert's answers alone."""
    examples: int
    regression_kinds: tuple[str, ...]
    cut: int = 0
    """The number of answers to held-out prompts that ended early."""
    calibration: Calibration | None = None
    sure: tuple[float, ...] = ()
    """By example: the model's probability of its label; 0: it has none. Empty: it was not measured."""

    def figures(self) -> dict[str, float]:
        """Return every metric that applies, by name, with ``examples`` and ``regression_items``."""
        figures = {
            name: scores.only(scores.scored).figure(metric_of(name).test)
            for name, scores in self.by_metric.items()
        }
        counts = {"examples": float(self.examples), "regression_items": float(len(self.regression_kinds))}
        return figures | counts

    def by_kind(self) -> dict[str, float]:
        """Return regression accuracy by kind of item."""
        if not self.regression_kinds:
            return {}
        kinds, right = np.asarray(self.regression_kinds), self.by_metric["regression_accuracy"].values
        return {str(kind): float(np.mean(right[kinds == kind])) for kind in sorted(set(kinds))}


def outcomes(
    measurement: Measurement,
    examples: Sequence[ChatExample],
    items: Sequence[RegressionItem],
    task: TaskSpec,
    *,
    tasks: Sequence[AskedTask] = (),
    asked_for: frozenset[str] = frozenset(),
    corpus: Corpus = frozenset(),
    passages: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    ranked: Sequence[Answered] = (),
) -> Outcomes:
    """Judge a complete measurement by every metric that ``task`` has all for.

    ``tasks``: those of lm-eval, with every figure that they have. ``corpus`` holds the terms of the training
    rows, for those of ``asked_for`` that need them. ``passages``: what stood in each prompt, by example.
    ``ranked``: the questions whose document is known, for one contestant: they are the same for all. Raises
    KeyError: a row is missing: the measurement is not complete.
    """
    limit = task.max_output_tokens
    rows = [_holdout_row(measurement, example_key(one, max_output_tokens=limit)) for one in examples]
    answered = {
        "holdout": [
            _answered(one, row, passages.get(one.example_id, ()))
            for one, row in zip(examples, rows, strict=True)
        ],
        "regression": [_asked(item, _regression_row(measurement, item.key)) for item in items],
        "retrieval": [*ranked],
        "judge": [],
    }
    answered |= {one.rows: [_questioned(measurement.rows[key]) for key in one.keys] for one in tasks}
    figures = {name for one in tasks for row in answered[one.rows] for name in row.scores}
    metrics = {**metrics_for(task, asked_for), **{name: metric_of(name) for name in sorted(figures)}}
    found: dict[str, Scores] = {}
    has_labels_alone = any(row.cut and row.output.lstrip().startswith("{") for row in rows)
    for name, metric in metrics.items():
        if has_labels_alone and metric.on == "holdout" and metric.test != "ratio" and name != LABELS:
            continue  # An answer that was cut after its label says nothing about other figures.
        scores = _scores(metric.scorer(task, corpus), answered[metric.on], weighed=metric.test == "ratio")
        if scores.scored.any():
            found[name] = scores
    kinds = tuple(item.kind for item in items)
    cut = sum(row.cut for row in rows)
    sure = tuple(row.sure for row in rows if row.sure is not None)
    return Outcomes(
        found,
        len(examples),
        kinds,
        cut,
        _calibration(rows, found.get(LABELS), task),
        sure if len(sure) == len(rows) else (),
    )


def _calibration(rows: Sequence[HoldoutRow], scores: Scores | None, task: TaskSpec) -> Calibration | None:
    if scores is None:
        return None
    right = scores.values
    sure = [(row.sure, hit, label_of(row.output, task)) for row, hit in zip(rows, right, strict=True)]
    return calibrated([(share, hit, label) for share, hit, label in sure if share and label is not None])


def metric_of(name: str) -> Metric:
    """Return the metric that a figure is named by. Raises KeyError where there is none."""
    metric = find_metric(name)
    if metric is None:
        raise KeyError(name)
    return metric


def about_passages(names: Iterable[str], spec: RetrievalSpec | None) -> list[str]:
    """Return those of the metrics ``names`` that rest on what is looked up under ``spec``."""
    if spec is None:
        return []
    found = {name: find_metric(name) for name in sorted(names)}
    return [
        name
        for name, metric in found.items()
        if metric is not None
        and (metric.on == "retrieval" or (metric.needs_passages and spec.default == "on"))
    ]


RowScorer = Callable[[ChatExample, HoldoutRow], float | None]
"""Scores one answer to a held-out prompt; None where the metric says nothing about it."""


def row_scorers(
    task: TaskSpec,
    *,
    asked_for: frozenset[str] = frozenset(),
    corpus: Corpus = frozenset(),
    passages: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> dict[str, RowScorer]:
    """Return the metrics that score what was written to a held-out prompt, row by row."""

    def scorer(score: ScoreRow) -> RowScorer:
        def scored(example: ChatExample, row: HoldoutRow) -> float | None:
            found = score(_answered(example, row, passages.get(example.example_id, ())))
            return found.value if isinstance(found, Score) else found

        return scored

    return {
        name: scorer(metric.scorer(task, corpus))
        for name, metric in metrics_for(task, asked_for).items()
        if metric.on == "holdout" and metric.test != "ratio"
    }


def _scores(score: ScoreRow, rows: Sequence[Answered], *, weighed: bool) -> Scores:
    scored = [score(row) for row in rows]
    pairs = [(one.value, one.weight) if isinstance(one, Score) else (one, 1.0) for one in scored]
    values = np.array([np.nan if value is None else value for value, _ in pairs], dtype=np.float64)
    return Scores(values, np.array([weight for _, weight in pairs], dtype=np.float64) if weighed else None)


def _answered(example: ChatExample, row: HoldoutRow, passages: tuple[str, ...] = ()) -> Answered:
    *before, last = example.messages
    return Answered(
        output=row.output,
        asked=said_before(before),
        system="\n\n".join(message.content for message in before if message.role == "system"),
        expected=last.content,
        nll=row.nll,
        tokens=row.tokens,
        passages=passages[: len(row.shown)],
    )


def _asked(item: RegressionItem, row: RegressionRow) -> Answered:
    return Answered(output=row.output, asked=item.prompt, expected=item.answer, correct=row.correct)


def _questioned(row: Any) -> Answered:
    if not isinstance(row, LmEvalRow):
        raise KeyError(row.key)
    scores = {name: Score(value, weight) for name, (value, weight) in row.scores.items()}
    return Answered(output="", scores=scores)


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
