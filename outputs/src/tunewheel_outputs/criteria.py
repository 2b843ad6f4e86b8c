"""Checks the criteria of a project when people declare it. Criteria that are already on the log stay valid:
eval then reports a criterion that cannot be measured as missed, with the reason."""

from __future__ import annotations

from functools import partial

from tunewheel_contracts.errors import InvalidSpec, check_all
from tunewheel_contracts.formats.criteria import LOOKS, Criterion
from tunewheel_contracts.formats.judge import JUDGED
from tunewheel_contracts.formats.spec import ProjectSpec, TaskSpec

from tunewheel_outputs.lm_eval_metric import FORMS, PREFIX, task_of
from tunewheel_outputs.metric import Metric
from tunewheel_outputs.metrics import find_metric, known_metrics

ALPHA = 0.05
"""Significance of a criterion that states none."""
LEAST_ALPHA, MOST_ALPHA = 1e-9, 0.5
"""Limits of a significance. A smaller one could be reached by no sample; a larger one would require less than
the toss of a coin. ``check_criteria`` refuses a larger one; in a spec on the log it counts as the limit."""


def level_of(criterion: Criterion | None, *, on_holdout: bool, looks: int = LOOKS) -> float:
    """Return the significance level of one verdict by ``criterion``.

    On held-out rows it is the criterion's significance divided by ``looks`` (``evaluation.looks``). So that
    many equally good candidates together are called better no more often than one would be (Bonferroni).
    Regression items do not come from the project's data and may be used any number of times.
    """
    asked = criterion.significance if criterion is not None else None
    bounded = min(max(asked or ALPHA, LEAST_ALPHA), MOST_ALPHA)
    return bounded / (looks if on_holdout else 1)


def refusal_level_of(criterion: Criterion, rivals: int) -> float:
    """Return the level at which a model counts as worse than the champion: the criterion's significance, but
    at most ``ALPHA``, since by .5 every second equal model would be refused. ``rivals`` criteria share it."""
    return min(level_of(criterion, on_holdout=False), ALPHA) / rivals


def check_criteria(spec: ProjectSpec) -> None:
    """Refuse criteria that cannot be measured, or whose bound is always met or never. Raises InvalidSpec: a
    metric is unknown, the task lacks a field that the metric needs, a bound is outside the metric's range, or
    a significance is above ``MOST_ALPHA``. Every criterion with a fault is named."""
    check_all(*(partial(_check, spec, one, f"criteria.{number}") for number, one in enumerate(spec.criteria)))


def _check(spec: ProjectSpec, criterion: Criterion, place: str) -> None:
    tasks = [one.task for one in spec.evaluation.lm_eval]
    metric, task = find_metric(criterion.metric), task_of(criterion.metric)
    if metric is None:
        raise InvalidSpec(field=f"{place}.metric", reason=unknown_metric(criterion.metric))
    if task is not None and task not in tasks:
        reason = f"is about the lm-eval task {task!r}, which evaluation.lm_eval does not name; add it there"
        raise InvalidSpec(field=f"{place}.metric", reason=reason)
    if (field := metric.lacks(spec.task)) is not None:
        reason = f"is missing, but criteria ask for {metric.name}; add one of them"
        raise InvalidSpec(field=f"task.{field}", reason=reason)
    if (criterion.significance or 0.0) > MOST_ALPHA:
        reason = f"{criterion.significance:g} is above {MOST_ALPHA:g}: write {MOST_ALPHA:g} or less"
        raise InvalidSpec(field=f"{place}.significance", reason=reason)
    _check_judge(spec, criterion, place)
    if criterion.by_label and metric.on != "holdout":
        reason = f"cannot go with {metric.name}, which is not about held-out rows: only these have labels"
        name = "label" if criterion.label is not None else "labels"
        raise InvalidSpec(field=f"{place}.{name}", reason=reason)
    _check_passages(spec, metric, criterion, place)
    _check_range(criterion, metric, place)


def _check_judge(spec: ProjectSpec, criterion: Criterion, place: str) -> None:
    if criterion.metric != JUDGED:
        return
    if spec.evaluation.judge is None:
        reason = f"is missing, but criteria ask for {JUDGED}; name the judge's base_url and model"
        raise InvalidSpec(field="evaluation.judge", reason=reason)
    if criterion.minimum is None:
        reason = f"is missing: {JUDGED} is the candidate's share against the champion; .5 is equal"
        raise InvalidSpec(field=f"{place}.minimum", reason=reason)
    for name in ("over_base", "over_champion"):
        if getattr(criterion, name) is not None:
            reason = f"cannot be met: {JUDGED} compares with the champion already; give a minimum instead"
            raise InvalidSpec(field=f"{place}.{name}", reason=reason)


def _check_passages(spec: ProjectSpec, metric: Metric, criterion: Criterion, place: str) -> None:
    of_ranking = metric.on == "retrieval"
    if spec.retrieval is None and (of_ranking or metric.needs_passages):
        reason = f"is missing, but criteria ask for {metric.name}, which is about passages; add it"
        raise InvalidSpec(field="retrieval", reason=reason)
    if spec.retrieval is not None and spec.retrieval.default == "off" and metric.needs_passages:
        reason = (
            f"is off, so answers are judged without passages, but {metric.name} is about passages; write on"
        )
        raise InvalidSpec(field="retrieval.default", reason=reason)
    if of_ranking and criterion.minimum is None and criterion.maximum is None:
        reason = f"is missing: {metric.name} is the same for all models; give a minimum, and no other bound"
        raise InvalidSpec(field=f"{place}.minimum", reason=reason)
    for name in ("over_base", "over_champion"):
        if of_ranking and getattr(criterion, name) is not None:
            reason = f"cannot be met: {metric.name} is the same for all models; give a minimum instead"
            raise InvalidSpec(field=f"{place}.{name}", reason=reason)


def unmeasurable(name: str, task: TaskSpec) -> str | None:
    """Return why a metric is not measured for ``task``; None: it is measured."""
    metric = find_metric(name)
    if metric is None:
        return unknown_metric(name)
    field = metric.lacks(task)
    return None if field is None else f"{name} needs task.{field}, which the project does not have"


def unknown_metric(name: str) -> str:
    if name.startswith(PREFIX):
        known = ", ".join(FORMS)
        return f"{name!r} is no known metric; of tasks of lm-eval choose {PREFIX}<task>. and one of {known}"
    return f"{name!r} is no known metric; choose from {', '.join(known_metrics())}"


def _check_range(criterion: Criterion, metric: Metric, place: str) -> None:
    highest = metric.highest
    for name in ("minimum", "maximum"):
        bound: float | None = getattr(criterion, name)
        if bound is not None and (bound < metric.lowest or (highest is not None and bound > highest)):
            upto = "" if highest is None else f"{highest:g}"
            reason = f"{bound} lies outside {metric.lowest:g}..{upto}, the range of {metric.name}"
            raise InvalidSpec(field=f"{place}.{name}", reason=reason)
