"""The verdict: for every declared criterion whether the measured figures meet it, miss it, or leave it
undecided.

A bound is met if the whole interval is on its good side, and missed if the whole interval is on its bad side.
If the bound lies within the interval, the bound is undecided. The verdict then says how many more
observations would show the observed difference, or at least a difference that matters.

A bound against the champion is missed if it is not met and the model is shown to be worse than the champion.
For this the significance is not divided by the number of looks: a wrong refusal costs one training, and puts
nothing worse into production. All criteria share it, so an equal model is seldom refused by any of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log2
from types import MappingProxyType

from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.scorecard import MET, MISSED, UNDECIDED, CriterionCheck, Gain, Role, worst_of
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_outputs.criteria import refusal_level_of, unmeasurable

from tunewheel_verdicts.measured import SLACK, Measured
from tunewheel_verdicts.parts import check_labels
from tunewheel_verdicts.significance import Interval, rows_needed
from tunewheel_verdicts.wording import VERBS, between, more_of, number, words_of, words_of_worse


@dataclass(frozen=True, slots=True)
class _Clause:
    outcome: str
    text: str
    more: int = 0
    """If undecided: how many more rows would decide; 0: more rows show nothing that matters."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """The claim that a figure or an advantage exceeds ``bound``. Its interval is ``low`` to ``high``."""

    bound: float
    observed: float
    low: float
    high: float
    distance: float
    """The smallest difference from the bound that matters."""
    spread: float
    """The standard deviation of a row's value, times the square root of the design effect."""
    alpha: float
    rows: int
    clusters: int
    certain: bool = False
    """Whether no figure can lie below the bound."""
    luck: float = 0.0
    """A p-value that must also be below alpha."""
    worse: bool | None = None
    """Whether the model is shown to be worse than the champion; None: the claim is about something else."""

    def outcome(self) -> tuple[str, int]:
        """Return ``MET``, ``MISSED``, or ``UNDECIDED`` with the number of further rows that would decide."""
        if self.certain or (self.low - self.bound > SLACK and self.luck <= self.alpha):
            return MET, 0
        short = self.bound - self.high > SLACK
        if self.worse or (short and (self.worse is None or self.bound > 0)):
            return MISSED, 0
        distance = max(self.distance, self.observed - self.bound)
        needed = rows_needed(spread=self.spread, distance=distance, alpha=self.alpha)
        # n observations cannot give a p-value below 2^-n
        fewest = ceil(ceil(log2(1 / self.alpha)) * self.rows / self.clusters)
        return UNDECIDED, max(0, max(needed, fewest) - self.rows)


def judge(
    criteria: Sequence[Criterion],
    measured: Mapping[str, Measured],
    task: TaskSpec,
    *,
    resolution: float,
    seed: int,
    not_yet: Mapping[str, str] = MappingProxyType({}),
    spent: float = 0.0,
    rivals: int | None = None,
) -> tuple[CriterionCheck, ...]:
    """Check each criterion. Without a champion, bounds against the champion count as met.

    ``resolution`` is the smallest difference that matters, as a fraction. ``seed`` is that of the sign flips.
    ``not_yet``: by metric, why it has no figure now that a later evaluation may have. ``spent``: how much of
    a margin against the champion may be lost already, since it may be worse than the best one before it.
    ``rivals``: see ``rivals_of``; None: those of ``criteria``.
    """
    if rivals is None:
        rivals = rivals_of(one for one in criteria if one.metric in measured)
    rules = _Rules(resolution, seed, rivals, spent)
    return tuple(
        _check(criterion, metric, rules)
        if (metric := measured.get(criterion.metric)) is not None
        else _unmeasured(criterion, task, not_yet.get(criterion.metric))
        for criterion in criteria
    )


def rivals_of(criteria: Iterable[Criterion]) -> int:
    """Return the number of comparisons with the champion, which share the chance of a wrong refusal; at least
    1."""
    return max(1, sum(is_about_champion(one) for one in criteria))


def is_about_champion(criterion: Criterion) -> bool:
    """Return whether a criterion compares with the champion. One that states a significance alone does."""
    others = (criterion.over_base, criterion.minimum, criterion.maximum)
    if criterion.by_label:  # it has its own chance of a wrong refusal
        return False
    return criterion.over_champion is not None or all(bound is None for bound in others)


def outcome_of(checks: Sequence[CriterionCheck]) -> str:
    """Return the outcome of all checks together."""
    return worst_of(check.end for check in checks)


def _unmeasured(criterion: Criterion, task: TaskSpec, not_yet: str | None) -> CriterionCheck:
    never = unmeasurable(criterion.metric, task)
    why = never or not_yet or "it says nothing about any of the rows"
    return CriterionCheck(
        criterion=criterion,
        observed=None,
        passed=False,
        reason=f"{criterion.metric} was not measured: {why}",
        outcome=MISSED if never or not_yet is None else UNDECIDED,
    )


@dataclass(frozen=True, slots=True)
class _Rules:
    resolution: float
    seed: int
    rivals: int
    """The number of comparisons with the champion, which share the chance of a wrong refusal."""
    spent: float


def _check(criterion: Criterion, metric: Measured, rules: _Rules) -> CriterionCheck:
    if criterion.by_label:
        return check_labels(criterion, metric, rules.seed)
    alpha = metric.alpha(criterion)
    figure = metric.figure(alpha=alpha)
    clauses = [
        *_absolute(criterion, metric, figure, rules.resolution),
        *_relative(criterion, metric, alpha, rules),
    ]
    outcome = worst_of(clause.outcome for clause in clauses)
    more = max((clause.more for clause in clauses), default=0) if outcome == UNDECIDED else 0
    would = f"{more_of(more, metric)} would tell" if more else "a difference that matters would have shown"
    return CriterionCheck(
        criterion=criterion,
        observed=figure.figure,
        passed=outcome == MET,
        reason=f"{metric.name} is {between(figure.figure, figure.low, figure.high)}: "
        + "; ".join(clause.text for clause in clauses)
        + (f"; {would}" if outcome == UNDECIDED else ""),
        outcome=outcome,
        low=figure.low,
        high=figure.high,
        more_examples=more if more and metric.on == "holdout" else None,
        gain=_gain(criterion, metric, alpha, rules),
        of_share=metric.is_share,
    )


def _gain(criterion: Criterion, metric: Measured, alpha: float, rules: _Rules) -> Gain | None:
    """Return the advantage over the champion on the held-out rows, if ``criterion`` asks for one and it is a
    share of questions. The error is at least that of one row: equal answers do not prove equal models."""
    if not metric.is_share or metric.on != "holdout":
        return None
    if all(role is not Role.CHAMPION for role, *_ in _bounds(criterion, metric, rules.spent)):
        return None
    found = metric.against(Role.CHAMPION, alpha=alpha, seed=rules.seed)
    if found is None:
        return None
    error = max(found.spread / found.rows**0.5, 1 / found.rows)
    return Gain(difference=found.difference, error=error, of="holdout")


def _absolute(
    criterion: Criterion, metric: Measured, figure: Interval, resolution: float
) -> Iterator[_Clause]:
    for bound, noun, sign in ((criterion.minimum, "minimum", 1), (criterion.maximum, "maximum", -1)):
        if bound is None:
            continue
        low, high = sorted((sign * figure.low, sign * figure.high))
        claim = _Claim(
            bound=sign * bound,
            observed=sign * figure.figure,
            low=low - metric.repeat_spread,
            high=high + metric.repeat_spread,
            distance=_smallest(resolution, metric, figure.figure),
            spread=max(figure.spread, _implied(metric, bound)),
            alpha=figure.alpha,
            rows=figure.rows,
            clusters=figure.clusters,
            certain=bound <= metric.lowest if sign > 0 else bound >= metric.highest,
        )
        outcome, more = claim.outcome()
        yield _Clause(outcome, f"{VERBS[outcome]} the {noun} of {number(bound)}", more)


def _relative(criterion: Criterion, metric: Measured, alpha: float, rules: _Rules) -> Iterator[_Clause]:
    for role, bound, asked in _bounds(criterion, metric, rules.spent):
        advantage = metric.against(role, alpha=alpha, seed=rules.seed)
        if advantage is None:
            missing = f"there is no {role.value} to be {number(bound)} better than"
            yield _Clause(MET if role is Role.CHAMPION else MISSED, missing)
            continue
        theirs = metric.figure_of(role)
        distance = max(abs(bound), _smallest(rules.resolution, metric, theirs))
        rival = None
        if role is Role.CHAMPION:
            rival = metric.against(role, alpha=refusal_level_of(criterion, rules.rivals), seed=rules.seed)
        claim = _Claim(
            bound=bound,
            observed=advantage.difference,
            low=advantage.low - metric.repeat_spread,
            high=advantage.high + metric.repeat_spread,
            distance=distance,
            spread=max(advantage.spread, _implied(metric, metric.lowest + distance)),
            alpha=alpha,
            rows=advantage.rows,
            clusters=advantage.clusters,
            certain=bound <= metric.lowest - metric.highest,
            luck=advantage.p_value if bound >= 0 else 0.0,
            worse=None if rival is None else rival.high + metric.repeat_spread < -SLACK,
        )
        outcome, more = claim.outcome()
        if outcome == MISSED and rival is not None and claim.worse:
            yield _Clause(outcome, words_of_worse(rival, theirs, asked))
        else:
            yield _Clause(outcome, words_of(advantage, role, theirs, outcome, asked), more)


def _bounds(criterion: Criterion, metric: Measured, spent: float) -> Iterator[tuple[Role, float, str]]:
    """Yield the contestant, the bound, and the words for it."""
    if criterion.over_base is not None:
        yield Role.BASE, criterion.over_base, f"the {number(criterion.over_base, signed=True)} asked for"
    if criterion.over_champion is not None:
        yield Role.CHAMPION, *_of_margin(criterion.over_champion, metric, spent)
    elif (
        criterion.over_base is criterion.minimum is criterion.maximum is None
    ):  # it states a significance alone
        yield (Role.CHAMPION if Role.CHAMPION in metric.scores else Role.BASE), 0.0, "the +0 asked for"


def _of_margin(declared: float, metric: Measured, spent: float) -> tuple[float, str]:
    """Return the bound against the champion, and the words for it. What may be lost already is a share of
    questions, so it takes from margins of that unit alone."""
    limited = metric.lowest - metric.highest < declared < 0
    if not spent or not limited or not metric.is_share or metric.on != "holdout":
        return declared, f"the {number(declared, signed=True)} asked for"
    bound = min(0.0, declared + spent)
    return bound, (
        f"the {number(bound, signed=True)} asked for (it may lose {number(-declared)}, "
        f"of which {number(spent)} may be lost already)"
    )


def _smallest(resolution: float, metric: Measured, figure: float) -> float:
    """Return the smallest difference that matters, in the metric's unit: at least the difference between two
    measurements of one model."""
    span = metric.highest - metric.lowest
    smallest = resolution * (span if span < float("inf") else max(abs(figure), SLACK))
    return max(smallest, metric.repeat_spread)


def _implied(metric: Measured, bound: float) -> float:
    """Return the spread of rows with mean ``bound`` if each is all or nothing. The observed spread of a few
    equal rows would be too small for planning."""
    span = metric.highest - metric.lowest
    if metric.test != "proportion" or not 0 < span < float("inf"):
        return 0.0
    share = min(1.0, max(0.0, (bound - metric.lowest) / span))
    return span * (share * (1 - share)) ** 0.5
