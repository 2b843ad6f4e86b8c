"""Scores single answers by a project's criteria, as the reward of ``train.reward``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_outputs.metric import Metric, Row, Score, ScoreRow
from tunewheel_outputs.metrics import find_metric

Part = Callable[[Row], float | None]
"""Returns the score of one answer, from 0 (worst) to 1 (best); None: the metric does not apply."""


def reward_parts(names: Iterable[str], task: TaskSpec) -> dict[str, Part]:
    """Return by name those of the metrics ``names`` that score a single answer beside the expert's. Left out:
    what reads other rows (perplexity, regression items, documents, the judge's comparisons)."""
    metrics = (find_metric(name) for name in dict.fromkeys(names))
    return {
        metric.name: partial(_score, metric, metric.scorer(task, frozenset()))
        for metric in metrics
        if metric is not None and _scores_alone(metric, task)
    }


def guard_of(task: TaskSpec) -> str:
    """Return the metric that must not fall while an answer's reward rises, whatever the criteria are."""
    return "label_accuracy" if task.has_labels else "rouge_l"


def _scores_alone(metric: Metric, task: TaskSpec) -> bool:
    bounded = metric.test != "ratio" and metric.highest is not None
    further = metric.needs_corpus or metric.needs_passages or metric.on != "holdout"
    return bounded and not further and metric.lacks(task) is None


def _score(metric: Metric, score: ScoreRow, row: Row) -> float | None:
    found = score(row)
    value = found.value if isinstance(found, Score) else found
    if value is None:
        return None
    assert metric.highest is not None
    share = (value - metric.lowest) / (metric.highest - metric.lowest)
    return 1 - share if metric.lower_is_better else share
