"""What criteria may ask for, checked where people declare a project. What is on the log stays valid: there
eval says that a criterion is missed, and why."""

from __future__ import annotations

from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.spec import ProjectSpec, TaskSpec

from tunewheel_outputs.metric import Metric
from tunewheel_outputs.metrics import known_metrics


def check_criteria(spec: ProjectSpec) -> None:
    """Refuse criteria that nothing could meet or miss.

    Raises:
        InvalidSpec: a metric is unknown, or lacks what it needs of the task, or a bound lies outside its
            range; ``field`` is the path in the spec.
    """
    for number, criterion in enumerate(spec.criteria):
        metric = known_metrics().get(criterion.metric)
        if metric is None:
            raise InvalidSpec(field=f"criteria.{number}.metric", reason=unknown_metric(criterion.metric))
        if (field := metric.lacks(spec.task)) is not None:
            reason = f"is missing, but criteria ask for {metric.name}; add one of them"
            raise InvalidSpec(field=f"task.{field}", reason=reason)
        _check_range(criterion, metric, f"criteria.{number}")


def unmeasurable(name: str, task: TaskSpec) -> str | None:
    """Return why a metric is not measured for ``task``; None where it is."""
    metric = known_metrics().get(name)
    if metric is None:
        return unknown_metric(name)
    field = metric.lacks(task)
    return None if field is None else f"{name} needs task.{field}, which the project does not give"


def unknown_metric(name: str) -> str:
    return f"{name!r} is no known metric; choose from {', '.join(known_metrics())}"


def _check_range(criterion: Criterion, metric: Metric, place: str) -> None:
    highest = metric.highest
    for name in ("minimum", "maximum"):
        bound: float | None = getattr(criterion, name)
        if bound is not None and (bound < metric.lowest or (highest is not None and bound > highest)):
            upto = "" if highest is None else f"{highest:g}"
            reason = f"{bound} lies outside {metric.lowest:g}..{upto}, the range of {metric.name}"
            raise InvalidSpec(field=f"{place}.{name}", reason=reason)
