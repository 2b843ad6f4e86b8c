"""Says before a training how likely a verdict is: drawn figures of models of a stated quality go through
``judge``, with the criteria of the project.

Metrics are drawn independently of each other, so the probability that all criteria are met is the product of
their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from math import ceil, prod
from types import MappingProxyType

import numpy as np
from tunewheel_contracts.api.datasets import Chances, Power, Remedy
from tunewheel_contracts.formats.criteria import LOOKS, Criterion
from tunewheel_contracts.formats.scorecard import OUTCOMES, Role, Scorecard
from tunewheel_contracts.formats.spec import ProjectSpec, TaskSpec
from tunewheel_outputs.metrics import find_metric

from tunewheel_verdicts.drawing import CORRELATION, OWN, Case, Expected, assumed_of, drawn
from tunewheel_verdicts.verdict import is_about_champion, judge, rivals_of

GAINS = (0.0, 0.05, 0.1)
"""The advantages over the champion that are told."""
HARDLY = 0.5
"""Criteria that pass a model .10 better than the champion less often get a caution."""
ENOUGH = 0.8
"""A project should pass a model that is the last of ``GAINS`` better so often."""
DRAWS = 600
_LOOK, _ERROR = 60, 0.018
"""After each so many draws: whether the standard error of all shares is small enough."""
SEARCHED = 120
"""The draws with which a remedy is looked for."""
_MOST_ROWS = 5_000
_TASK = TaskSpec(system_prompt="-")


def expected_by(card: Scorecard) -> dict[str, Expected]:
    """Return what a scorecard's figures let expect of the next candidate, by metric. Where there is no
    champion, this candidate becomes the champion."""
    figures = {one.role: one.metrics for one in card.contestants}
    champion = figures.get(Role.CHAMPION) or figures.get(Role.CANDIDATE) or {}
    base = figures.get(Role.BASE) or {}
    return {
        name: replace(assumed_of(name), champion=champion[name], base=base[name])
        for name in card.metrics
        if name in champion and name in base
    }


def sizes_in(card: Scorecard) -> tuple[int, ...]:
    """Return about how many rows each customer of a scorecard's holdout has."""
    rows, customers = max(((one.rows, one.clusters) for one in card.findings), default=(0, 1))
    return tuple(rows // customers + (place < rows % customers) for place in range(customers))


def sizes_of(rows: int) -> tuple[int, ...]:
    """Return the rows of each customer where only the number of rows is known: one and two in turn."""
    return tuple(np.unique(np.arange(rows) * 2 // 3, return_counts=True)[1].tolist())


def sizes_for(spec: ProjectSpec, card: Scorecard | None) -> tuple[int, ...]:
    """Return the held-out rows of each customer: those of ``card``, or else of the smallest version that the
    spec allows."""
    if card is not None and card.findings:
        return sizes_in(card)
    return sizes_of(max(1, int(spec.dataset.min_examples * spec.dataset.holdout_fraction)))


def chances(
    criteria: Sequence[Criterion],
    sizes: Sequence[int],
    *,
    resolution: float,
    looks: int = LOOKS,
    expected: Mapping[str, Expected] = MappingProxyType({}),
    correlation: float = CORRELATION,
    draws: int = DRAWS,
) -> tuple[Chances, ...]:
    """Return how likely each outcome of all criteria is: for a first model, which has no champion to be
    compared with, and for later ones that are ``GAINS`` better than the champion.

    ``sizes``: the held-out rows of each customer. ``expected``: by metric; what is missing is assumed.
    ``draws``: models that are drawn for each outcome.
    """
    case = Case(tuple(sizes), looks, resolution, rivals_of(criteria), correlation)
    levels = {one.metric: expected.get(one.metric) or assumed_of(one.metric) for one in criteria}
    return tuple(
        combined(gain, [shares_of(case, one, levels[one.metric], gain, draws) for one in criteria])
        for gain in (None, *GAINS)
    )


def combined(gain: float | None, shares: Iterable[tuple[float, ...]]) -> Chances:
    """Return how likely each outcome of criteria together is, from how likely each criterion's are."""
    each = list(shares)
    # the worst one is that of all: it is no worse than an outcome if all are no worse
    met, undecided, _ = (prod(sum(one[: place + 1]) for one in each) for place in range(len(OUTCOMES)))
    return Chances(gain=gain, met=met, undecided=max(0.0, undecided - met), missed=1 - undecided)


def shares_of(
    case: Case, criterion: Criterion, expected: Expected, gain: float | None, draws: int
) -> tuple[float, ...]:
    """Return how often a drawn model meets a criterion, leaves it undecided, and misses it."""
    if criterion.by_label:  # it fails no more than one in twenty of models that are as good
        return 1.0, 0.0, 0.0
    if gain is not None and not expected.gains:
        gain = 0.0
    if gain is None and not is_about_champion(criterion):
        gain = 0.0
    return _shares(case, criterion.model_dump_json(exclude_none=True), expected, gain, draws)


@lru_cache(maxsize=512)
def _shares(
    case: Case, criterion_json: str, expected: Expected, gain: float | None, draws: int
) -> tuple[float, ...]:
    criterion = Criterion.model_validate_json(criterion_json)
    metric = find_metric(criterion.metric)
    if metric is None:
        return 0.0, 0.0, 1.0
    if metric.on in OWN and not sum(case.sizes):
        return 0.0, 1.0, 0.0
    outcomes: list[str | None] = []
    for one in drawn(metric, criterion, expected, case, gain, draws):
        (check,) = judge(
            [criterion], {metric.name: one}, _TASK, resolution=case.resolution, seed=0, rivals=case.rivals
        )
        outcomes.append(check.outcome)
        if len(outcomes) % _LOOK == 0:
            shares = [outcomes.count(state) / len(outcomes) for state in OUTCOMES]
            if max(share * (1 - share) for share in shares) <= len(outcomes) * _ERROR**2:
                break
    return tuple(outcomes.count(state) / len(outcomes) for state in OUTCOMES)


def power_of(
    spec: ProjectSpec, sizes: Sequence[int], expected: Mapping[str, Expected] = MappingProxyType({})
) -> Power:
    """Return the power of the spec's criteria on held-out rows of customers of ``sizes``."""
    judged = spec.evaluation
    found = chances(spec.criteria, sizes, resolution=judged.resolution, looks=judged.looks, expected=expected)
    levels = {one.metric: expected.get(one.metric) or assumed_of(one.metric) for one in spec.criteria}
    said = tuple(
        f"{name}: base {one.base:g}, champion {one.champion:g}"
        for name, one in levels.items()
        if name not in expected
    )
    remedies = () if found[-1].met >= ENOUGH else tuple(_remedies(spec, tuple(sizes), levels))
    return Power(rows=sum(sizes), customers=len(sizes), assumed=said, chances=found, remedies=remedies)


def _remedies(spec: ProjectSpec, sizes: tuple[int, ...], levels: Mapping[str, Expected]) -> Iterator[Remedy]:
    case = Case(sizes, spec.evaluation.looks, spec.evaluation.resolution, rivals_of(spec.criteria))

    def passes(sizes: tuple[int, ...], criteria: Sequence[Criterion] = spec.criteria) -> bool:
        own = replace(case, sizes=sizes)
        met = (shares_of(own, one, levels[one.metric], GAINS[-1], SEARCHED)[0] for one in criteria)
        return prod(met) >= ENOUGH

    if (more := _customers(sizes, passes)) is not None:
        examples = ceil(sum(more) / spec.dataset.holdout_fraction)
        added = len(more) - len(sizes)
        change = f"{added} more customers ({sum(more)} held-out rows)"
        yield Remedy(change=change, lines=(f"dataset: {{min_examples: {examples}}}",))
    for change, criteria in _looser(spec.criteria, levels, case):
        if passes(sizes, criteria):
            yield Remedy(change=change, lines=("criteria:", *(f"  - {_flow(one)}" for one in criteria)))
            return


def _customers(sizes: tuple[int, ...], passes: Callable[[tuple[int, ...]], bool]) -> tuple[int, ...] | None:
    """Return sizes of the fewest customers with which the criteria pass; None: no number of rows does."""
    count = max(1, len(sizes))

    def grown(customers: int) -> tuple[int, ...]:
        return tuple((sizes or (1,)) * ceil(customers / count))[:customers]

    few, many = count, 2 * count
    while not passes(grown(many)):
        few, many = many, 2 * many
        if sum(grown(many)) > _MOST_ROWS:
            return None
    while many - few > max(1, few // 10):
        middle = (few + many) // 2
        few, many = (few, middle) if passes(grown(middle)) else (middle, many)
    return grown(many)


def _looser(
    criteria: Sequence[Criterion], levels: Mapping[str, Expected], case: Case
) -> Iterator[tuple[str, list[Criterion]]]:
    """Yield the criteria with the bounds of the one that passes most seldom ever looser."""
    number, weakest = min(
        enumerate(criteria),
        key=lambda one: shares_of(case, one[1], levels[one[1].metric], GAINS[-1], SEARCHED)[0],
    )
    for significance in dict.fromkeys((weakest.significance, 0.5)):
        for step in range(5):
            changed = {
                name: round(bound - 0.05 * step, 2)
                for name in ("minimum", "over_base", "over_champion")
                if (bound := getattr(weakest, name)) is not None
            } | ({"significance": significance} if significance else {})
            looser = weakest.model_copy(update=changed)
            if looser != weakest:
                told = ", ".join(f"{name} {bound:g}" for name, bound in changed.items())
                yield f"{weakest.metric}: {told}", [*criteria[:number], looser, *criteria[number + 1 :]]


def _flow(criterion: Criterion) -> str:
    said = criterion.model_dump(exclude_none=True)
    return "{" + ", ".join(f"{name}: {value}" for name, value in said.items()) + "}"


def cautions_of(power: Power) -> tuple[str, ...]:
    """Return a warning if hardly any model that is the last of ``GAINS`` better meets the criteria."""
    met = power.chances[-1].met
    if met >= HARDLY:
        return ()
    changes = " or ".join(one.change for one in power.remedies)
    return (
        f"criteria pass a model .10 better than the champion in {met:.0%} of cases on {power.rows} held-out "
        "rows, as many as the smallest version has; "
        + (
            f"{changes} would make it four of five."
            if changes
            else "no number of rows and no margin makes it four of five: ask for less."
        ),
    )
