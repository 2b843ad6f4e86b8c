"""What criteria may ask for, checked where people declare a project. What is on the log stays valid: there
eval says that a criterion is missed, and why."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, log, log2

from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.look import LOOKS
from tunewheel_contracts.formats.spec import ProjectSpec, TaskSpec

from tunewheel_outputs.lm_eval_metric import FORMS, PREFIX, task_of
from tunewheel_outputs.metric import Metric
from tunewheel_outputs.metrics import find_metric, known_metrics

ALPHA = 0.05
"""Where a criterion states no significance."""
LEAST_ALPHA, MOST_ALPHA = 1e-9, 0.5
"""What a significance counts as that no sample can reach, or that asks for less than the toss of a coin."""


def level_of(criterion: Criterion | None, *, on_holdout: bool) -> float:
    """Return the level that one verdict by ``criterion`` is given at.

    A tenth of its significance on held-out rows, so that ten equal candidates together are called better no
    more often than one (Bonferroni). Regression items are the operator's, not drawn from the project's data,
    and are not used up.
    """
    asked = criterion.significance if criterion is not None else None
    bounded = min(max(asked or ALPHA, LEAST_ALPHA), MOST_ALPHA)
    return bounded / (LOOKS if on_holdout else 1)


def hardly_decided(spec: ProjectSpec) -> tuple[str, ...]:
    """Return a sentence for each bound on held-out rows that the smallest version which the spec allows could
    not decide even if every row spoke for the candidate."""
    fraction, smallest = spec.dataset.holdout_fraction, spec.dataset.min_examples
    rows = max(1, int(smallest * fraction))
    said: list[str] = []
    for number, criterion in enumerate(spec.criteria):
        metric = known_metrics().get(criterion.metric)
        if metric is None or metric.on != "holdout":
            continue
        for bound, least in _least_rows(criterion, metric):
            place = f"criteria.{number} ({criterion.metric}, {bound})"
            if least is None:
                said.append(
                    f"{place} is met by no number of rows, for intervals end before it; ask for less."
                )
            elif least > rows:
                said.append(
                    f"{place} takes at least {least} held-out rows, and dataset.min_examples {smallest} "
                    f"holds out about {rows}: verdicts on versions of fewer than {ceil(least / fraction)} "
                    "examples are undecided; raise dataset.min_examples, or ask for less."
                )
    return tuple(said)


def _least_rows(criterion: Criterion, metric: Metric) -> Iterator[tuple[str, int | None]]:
    """Yield each bound with the fewest rows that can meet it; None: there are not as many."""
    alpha = level_of(criterion, on_holdout=True)
    span = (metric.highest or float("inf")) - metric.lowest
    if span < float("inf"):
        for name, bound, share in (
            ("minimum", criterion.minimum, lambda value: (value - metric.lowest) / span),
            ("maximum", criterion.maximum, lambda value: 1 - (value - metric.lowest) / span),
        ):
            if bound is not None:
                yield f"{name} {bound:g}", _all_right(share(bound), alpha)
    others = {"over_base": criterion.over_base, "over_champion": criterion.over_champion}
    given = {name: bound for name, bound in others.items() if bound is not None}
    if not given and criterion.significance is not None:
        yield f"significance {criterion.significance:g}", ceil(log2(1 / alpha))
    for name, bound in given.items():
        if bound >= 0:
            yield f"{name} {bound:g}", ceil(log2(1 / alpha))  # as many signs that all agree
        elif span < float("inf"):
            yield f"{name} {bound:g}", _all_right(1 + bound / span, alpha)  # no row was lost


def _all_right(share: float, alpha: float) -> int | None:
    """Return of how many rows, all of them right, a share of ``share`` right ones is the low end."""
    if share <= 0:
        return 1
    return None if share >= 1 else ceil(log(alpha) / log(share))


def check_criteria(spec: ProjectSpec) -> None:
    """Refuse criteria that nothing could meet or miss.

    Raises:
        InvalidSpec: a metric is unknown, or lacks what it needs of the task, or a bound lies outside its
            range; ``field`` is the path in the spec.
    """
    tasks = [one.task for one in spec.evaluation.lm_eval]
    for number, criterion in enumerate(spec.criteria):
        metric, task = find_metric(criterion.metric), task_of(criterion.metric)
        if metric is None:
            raise InvalidSpec(field=f"criteria.{number}.metric", reason=unknown_metric(criterion.metric))
        if task is not None and task not in tasks:
            reason = (
                f"is about the lm-eval task {task!r}, which evaluation.lm_eval does not name; add it there"
            )
            raise InvalidSpec(field=f"criteria.{number}.metric", reason=reason)
        if (field := metric.lacks(spec.task)) is not None:
            reason = f"is missing, but criteria ask for {metric.name}; add one of them"
            raise InvalidSpec(field=f"task.{field}", reason=reason)
        _check_passages(spec, metric, criterion, f"criteria.{number}")
        _check_range(criterion, metric, f"criteria.{number}")


def _check_passages(spec: ProjectSpec, metric: Metric, criterion: Criterion, place: str) -> None:
    of_ranking = metric.on == "retrieval"
    if spec.retrieval is None and (of_ranking or metric.needs_passages):
        reason = f"is missing, but criteria ask for {metric.name}, which is about passages; add it"
        raise InvalidSpec(field="retrieval", reason=reason)
    if spec.retrieval is not None and spec.retrieval.default == "off" and metric.needs_passages:
        reason = f"is off, so answers are judged without passages, of which {metric.name} speaks; write on"
        raise InvalidSpec(field="retrieval.default", reason=reason)
    if of_ranking and criterion.minimum is None and criterion.maximum is None:
        reason = f"is missing: {metric.name} is the same whoever answers; give it, and nothing over a model"
        raise InvalidSpec(field=f"{place}.minimum", reason=reason)
    for name in ("over_base", "over_champion"):
        if of_ranking and getattr(criterion, name) is not None:
            reason = f"cannot be met: {metric.name} is the same whoever answers; give a minimum"
            raise InvalidSpec(field=f"{place}.{name}", reason=reason)


def unmeasurable(name: str, task: TaskSpec) -> str | None:
    """Return why a metric is not measured for ``task``; None where it is."""
    metric = find_metric(name)
    if metric is None:
        return unknown_metric(name)
    field = metric.lacks(task)
    return None if field is None else f"{name} needs task.{field}, which the project does not give"


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
