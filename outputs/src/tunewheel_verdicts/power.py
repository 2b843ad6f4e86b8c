"""Says before a training how likely a verdict is: drawn figures of models of a stated quality go through
``judge``, with the criteria of the project.

A customer's rows are alike: each customer has rates of its own, drawn about those of the model (Dirichlet;
for scores, normal). Metrics are drawn independently of each other, so the probability that all criteria are
met is the product of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, prod
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from tunewheel_contracts.formats.criteria import LOOKS, Criterion
from tunewheel_contracts.formats.scorecard import Role, Scorecard
from tunewheel_contracts.formats.spec import ProjectSpec, TaskSpec
from tunewheel_outputs.metric import Metric
from tunewheel_outputs.metrics import find_metric

from tunewheel_verdicts.measured import Measured
from tunewheel_verdicts.proportions import EXACT_UP_TO, mcnemar, paired_rejected
from tunewheel_verdicts.sign_flips import Floats
from tunewheel_verdicts.significance import Advantage, Scores
from tunewheel_verdicts.verdict import MET, MISSED, UNDECIDED, is_about_champion, judge, rivals_of

Ints = NDArray[np.int64]
GAINS = (0.0, 0.05, 0.1)
"""The advantages over the champion that are told."""
ENOUGH = 0.8
"""A project should pass a model that is the last of ``GAINS`` better so often."""
DRAWS = 600
_LOOK, _ERROR = 60, 0.018
"""After each so many draws: whether the standard error of all shares is small enough."""
SEARCHED = 120
"""The draws with which a remedy is looked for."""
FLIPS = 2_000
"""The sign flips of a drawn comparison; a verdict has ten times as many, which moves no probability."""
GENERAL = 200
"""Items of the general-regression set, and questions of a task of lm-eval."""
CORRELATION = 0.05
"""How alike the rows of a customer are assumed to be."""
_MOST_ROWS = 5_000
_POOL, _POOLED = 8, 600_000
"""How many times as many models are drawn as are judged; at most so many rows."""
_TOKENS = 32.0
_NUDGE = 1e-6
_TASK = TaskSpec(system_prompt="-")
_STATES = (MET, UNDECIDED, MISSED)


@dataclass(frozen=True, slots=True)
class Expected:
    """What is expected of one metric, in its unit. A later candidate is compared with a champion that has
    ``champion``; the first candidate itself has ``champion``."""

    base: float
    champion: float
    differ: float = 0.2
    """Of hits: the share of rows that candidate and champion answer differently. Of scores, and of nats per
    token: the standard deviation of a row's difference."""
    spread: float = 0.25
    """Of scores, and of nats per token: the standard deviation of rows."""
    gains: bool = True
    """Whether a better model is better by this metric. Otherwise it equals the champion."""


_FORM = Expected(base=0.35, champion=0.98, differ=0.04, spread=0.05, gains=False)
_KEPT = Expected(base=0.6, champion=0.6, gains=False)
_ASSUMED = {
    "valid_output": _FORM,
    "rule_compliance": _FORM,
    "domain_language": _FORM,
    "invented_terms": Expected(base=0.4, champion=0.02, differ=0.04, gains=False),
    "refusal_rate": Expected(base=0.5, champion=0.9, differ=0.1, gains=False),
    "groundedness": Expected(base=0.5, champion=0.85, spread=0.2, gains=False),
}


def assumed(metric: Metric) -> Expected:
    """Return what is assumed of a metric that was not measured."""
    if metric.name in _ASSUMED:
        return _ASSUMED[metric.name]
    if metric.on != "holdout":
        return replace(_KEPT, base=0.8, champion=0.8) if metric.on == "retrieval" else _KEPT
    if metric.test == "ratio":
        return Expected(base=20.0, champion=6.0, differ=0.15, spread=0.6)
    return Expected(base=0.35, champion=0.75 if metric.test == "proportion" else 0.6)


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


def assumed_of(name: str) -> Expected:
    return assumed(metric) if (metric := find_metric(name)) is not None else _KEPT


@dataclass(frozen=True, slots=True)
class Chances:
    """How likely each outcome of all criteria together is, for a model of a stated quality."""

    gain: float | None
    """How much better than the champion the model is. None: a first model, which has no champion to be
    compared with."""
    met: float
    undecided: float
    missed: float


def sizes_of(rows: int) -> tuple[int, ...]:
    """Return the rows of each customer where only the number of rows is known: one and two in turn."""
    return tuple(np.unique(np.arange(rows) * 2 // 3, return_counts=True)[1].tolist())


def chances(
    criteria: Sequence[Criterion],
    sizes: Sequence[int],
    *,
    resolution: float,
    looks: int = LOOKS,
    expected: Mapping[str, Expected] = MappingProxyType({}),
    correlation: float = CORRELATION,
) -> tuple[Chances, ...]:
    """Return how likely each outcome of all criteria is: for a first model, which has no champion to be
    compared with, and for later ones that are ``GAINS`` better than the champion.

    ``sizes``: the held-out rows of each customer. ``expected``: by metric; what is missing is assumed.
    """
    case = Case(tuple(sizes), resolution, looks, rivals_of(criteria), correlation)
    levels = {one.metric: expected.get(one.metric) or assumed_of(one.metric) for one in criteria}
    return tuple(
        _together(gain, [case.shares(one, levels[one.metric], gain, DRAWS) for one in criteria])
        for gain in (None, *GAINS)
    )


def _together(gain: float | None, shares: Iterable[tuple[float, ...]]) -> Chances:
    each = list(shares)
    met, not_missed = prod(one[0] for one in each), prod(1 - one[2] for one in each)
    return Chances(gain=gain, met=met, undecided=max(0.0, not_missed - met), missed=1 - not_missed)


@dataclass(frozen=True)
class Case:
    """The sample that criteria are judged by."""

    sizes: tuple[int, ...]
    resolution: float
    looks: int
    rivals: int
    correlation: float = CORRELATION

    def shares(
        self, criterion: Criterion, expected: Expected, gain: float | None, draws: int
    ) -> tuple[float, ...]:
        """Return how often a drawn model meets a criterion, leaves it undecided, and misses it."""
        if gain is not None and not expected.gains:
            gain = 0.0
        if gain is None and not is_about_champion(criterion):
            gain = 0.0
        return _shares(self, criterion.model_dump_json(exclude_none=True), expected, gain, draws)


@lru_cache(maxsize=512)
def _shares(
    case: Case, criterion_json: str, expected: Expected, gain: float | None, draws: int
) -> tuple[float, ...]:
    criterion = Criterion.model_validate_json(criterion_json)
    metric = find_metric(criterion.metric)
    if metric is None:
        return 0.0, 0.0, 1.0
    if metric.on == "holdout" and not sum(case.sizes):
        return 0.0, 1.0, 0.0
    outcomes: list[str | None] = []
    for one in _drawn(metric, criterion, expected, case, gain, draws):
        (check,) = judge(
            [criterion], {metric.name: one}, _TASK, resolution=case.resolution, seed=0, rivals=case.rivals
        )
        outcomes.append(check.outcome)
        if len(outcomes) % _LOOK == 0:
            shares = [outcomes.count(state) / len(outcomes) for state in _STATES]
            if max(share * (1 - share) for share in shares) <= len(outcomes) * _ERROR**2:
                break
    return tuple(outcomes.count(state) / len(outcomes) for state in _STATES)


def _drawn(
    metric: Metric, criterion: Criterion, expected: Expected, case: Case, gain: float | None, draws: int
) -> Iterator[Measured]:
    """Yield draws in a random order, stratified by what mostly decides: of a larger number, sorted by the
    observed advantage, every n-th."""
    sizes = np.array(case.sizes if metric.on in ("holdout", "retrieval") else [1] * GENERAL)
    rng, clusters = np.random.default_rng(29), np.repeat(np.arange(len(sizes)), sizes)
    pool = max(draws, min(_POOL * draws, _POOLED // len(clusters)))
    draw = _hits if metric.test == "proportion" else _scores
    contestants = draw(rng, metric, expected, clusters, case.correlation, gain or 0.0, pool)
    candidate, champion, base = (one.mean(axis=1) for one in contestants)
    if is_about_champion(criterion) and gain is not None:
        other = champion
    else:
        other = np.zeros(pool) if criterion.over_base is None else base
    ordered = np.lexsort((base, candidate - other))
    picked = ordered[np.linspace(0.5, len(ordered) - 0.5, draws).astype(int)]
    bounds = {criterion.over_base, criterion.over_champion, 0.0} - {None}
    weights = np.full(len(clusters), _TOKENS) if metric.test == "ratio" else None
    for number in rng.permutation(picked):
        by_role = dict(zip((Role.CANDIDATE, Role.CHAMPION, Role.BASE), contestants, strict=True))
        if gain is None:
            del by_role[Role.CHAMPION]
        yield Drawn(
            name=metric.name, test=metric.test, lower_is_better=metric.lower_is_better, lowest=metric.lowest,
            highest=float("inf") if metric.highest is None else metric.highest, on=metric.on,
            scores={role: Scores(rows[number], weights) for role, rows in by_role.items()},
            clusters=clusters, unit=metric.unit, flips=FLIPS, looks=case.looks, bounds=tuple(sorted(bounds)),
        )  # fmt: skip


@dataclass(frozen=True)
class Drawn(Measured):
    """A drawn metric. Where each row is a cluster of its own, an end of a difference's interval is told no
    finer than on which side of ``bounds`` it lies: that is all that decides, and exact ends take long."""

    bounds: tuple[float, ...] = ()

    def against(self, role: Role, *, alpha: float, seed: int) -> Advantage | None:
        rows = len(self.clusters)
        exact = self.test == "proportion" and rows == len(np.unique(self.clusters)) <= EXACT_UP_TO
        if not exact or role not in self.scores:
            return super().against(role, alpha=alpha, seed=seed)
        sign = -1 if self.lower_is_better else 1
        difference = sign * (self.scores[Role.CANDIDATE].values - self.scores[role].values)
        gained, lost = int((difference > 0).sum()), int((difference < 0).sum())
        return Advantage(
            difference=(gained - lost) / rows,
            p_value=mcnemar(gained, lost),
            low=max((b + _NUDGE for b in self.bounds if _above(gained, lost, rows, b, alpha)), default=-1.0),
            high=min((b - _NUDGE for b in self.bounds if _above(lost, gained, rows, -b, alpha)), default=1.0),
            alpha=alpha,
            test="mcnemar_exact",
            rows=rows,
            clusters=rows,
            spread=float(difference.std()),
        )


def _above(gained: int, lost: int, rows: int, bound: float, alpha: float) -> bool:
    """Return whether the difference is shown to exceed ``bound``; see ``proportions.paired_low``."""
    if gained == lost == 0:
        return alpha ** (1 / rows) - 1 > bound
    return -1 < bound < 1 and bool(paired_rejected(rows, bound, alpha=alpha)[gained, lost])


def _hits(
    rng: np.random.Generator, metric: Metric, expected: Expected, clusters: Ints, alike: float, gain: float,
    draws: int,
) -> tuple[Floats, ...]:  # fmt: skip
    """Draw hits of candidate, champion and base: each of shape (draws, rows)."""
    right, differ = expected.champion, max(expected.differ, abs(gain))
    won, lost = min((differ + gain) / 2, 1 - right), min((differ - gain) / 2, right)
    pair = _outcomes(rng, [won, lost, right - lost, 1 - right - won], clusters, alike, draws)
    base = _outcomes(rng, [expected.base, 1 - expected.base], clusters, alike, draws)
    hits = (pair == 0) | (pair == 2), (pair == 1) | (pair == 2), base == 0
    return tuple(hit.astype(np.float64) for hit in hits)


def _outcomes(
    rng: np.random.Generator, shares: Sequence[float], clusters: Ints, alike: float, draws: int
) -> Ints:
    """Draw one of ``len(shares)`` outcomes for every row: shape (draws, rows)."""
    count = int(clusters[-1]) + 1
    if alike > 0 and count < len(clusters):
        own = rng.gamma(np.maximum(shares, 0) * (1 / alike - 1), size=(draws, count, len(shares))) + 1e-300
        limits = (own / own.sum(axis=2, keepdims=True)).cumsum(axis=2)[:, clusters, :-1]
    else:
        limits = np.cumsum(shares)[None, None, :-1]
    return (rng.random((draws, len(clusters), 1)) > limits).sum(axis=2)


def _scores(
    rng: np.random.Generator, metric: Metric, expected: Expected, clusters: Ints, alike: float, gain: float,
    draws: int,
) -> tuple[Floats, ...]:  # fmt: skip
    """Draw scores, or nats, of candidate, champion and base: each of shape (draws, rows)."""
    own, base, apart = (
        alike**0.5 * rng.standard_normal((draws, int(clusters[-1]) + 1))[:, clusters]
        + (1 - alike) ** 0.5 * rng.standard_normal((draws, len(clusters)))
        for _ in range(3)
    )
    half, spread, figure = expected.differ / 2, expected.spread, expected.champion
    noise = (spread * own + half * apart, spread * own - half * apart, spread * base)
    if metric.test == "ratio":
        levels = (figure * (1 - gain), figure, expected.base)
        return tuple(
            np.maximum(np.log(max(level, 1.001)) + one, 0) * _TOKENS
            for level, one in zip(levels, noise, strict=True)
        )
    deviations = (float(np.hypot(spread, half)),) * 2 + (spread,)
    levels = (figure + gain, figure, expected.base)
    return tuple(
        np.clip(_centre(round(level, 6), round(sd, 6)) + one, 0, 1)
        for level, sd, one in zip(levels, deviations, noise, strict=True)
    )


@lru_cache(maxsize=256)
def _centre(mean: float, sd: float) -> float:
    """Return the middle of a normal that has ``mean`` once it is cut off at 0 and 1."""
    from scipy.special import ndtr

    def cut(middle: float) -> float:
        low, high = -middle / sd, (1 - middle) / sd
        density = (np.exp(-low * low / 2) - np.exp(-high * high / 2)) / (2 * np.pi) ** 0.5
        return float(middle * (ndtr(high) - ndtr(low)) + sd * density + 1 - ndtr(high))

    below, above = -2.0, 3.0
    for _ in range(40):
        middle = (below + above) / 2
        below, above = (middle, above) if cut(middle) < min(max(mean, 0.001), 0.999) else (below, middle)
    return (below + above) / 2


@dataclass(frozen=True, slots=True)
class Remedy:
    """One change with which a model that is the last of ``GAINS`` better passes in ``ENOUGH`` of cases."""

    change: str
    lines: tuple[str, ...]
    """What to write into project.yaml."""


@dataclass(frozen=True, slots=True)
class Power:
    """How likely a verdict on one sample is, and what would make it likelier."""

    rows: int
    customers: int
    assumptions: tuple[str, ...]
    chances: tuple[Chances, ...]
    remedies: tuple[Remedy, ...]

    @property
    def is_enough(self) -> bool:
        return self.chances[-1].met >= ENOUGH


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
    power = Power(sum(sizes), len(sizes), said, found, ())
    return power if power.is_enough else replace(power, remedies=tuple(_remedies(spec, tuple(sizes), levels)))


def _remedies(spec: ProjectSpec, sizes: tuple[int, ...], levels: Mapping[str, Expected]) -> Iterator[Remedy]:
    case = Case(sizes, spec.evaluation.resolution, spec.evaluation.looks, rivals_of(spec.criteria))

    def passes(sizes: tuple[int, ...], criteria: Sequence[Criterion] = spec.criteria) -> bool:
        own = replace(case, sizes=sizes)
        return prod(own.shares(one, levels[one.metric], GAINS[-1], SEARCHED)[0] for one in criteria) >= ENOUGH

    if (more := _customers(sizes, passes)) is not None:
        examples = ceil(sum(more) / spec.dataset.holdout_fraction)
        added = len(more) - len(sizes)
        yield Remedy(
            f"{added} more customers ({sum(more)} held-out rows)", (f"dataset: {{min_examples: {examples}}}",)
        )
    for change, criteria in _looser(spec.criteria, levels, case):
        if passes(sizes, criteria):
            yield Remedy(change, ("criteria:", *(f"  - {_flow(one)}" for one in criteria)))
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
        key=lambda one: case.shares(one[1], levels[one[1].metric], GAINS[-1], SEARCHED)[0],
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
