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

import numpy as np
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.scorecard import CriterionCheck, Gain, Role
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_outputs.criteria import ALPHA, level_of, unmeasurable

from tunewheel_verdicts.measured import Measured
from tunewheel_verdicts.parts import of_labels, shown_worse, together
from tunewheel_verdicts.significance import Advantage, Interval, rows_needed

MET, MISSED, UNDECIDED = "met", "missed", "undecided"
_SLACK = 1e-9
"""Tolerance for rounding: an interval that ends at the bound must not miss it by the last bits."""


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
        if self.certain or (self.low - self.bound > _SLACK and self.luck <= self.alpha):
            return MET, 0
        short = self.bound - self.high > _SLACK
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
    """Return the outcome of all checks together. Missed outweighs undecided."""
    outcomes = {check.outcome or (MET if check.passed else MISSED) for check in checks}
    return MISSED if MISSED in outcomes else UNDECIDED if UNDECIDED in outcomes else MET


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
        return _check_labels(criterion, metric, rules.seed)
    alpha = metric.alpha(criterion)
    figure = metric.figure(alpha=alpha)
    clauses = [
        *_absolute(criterion, metric, figure, rules.resolution),
        *_relative(criterion, metric, alpha, rules),
    ]
    outcomes = {clause.outcome for clause in clauses}
    outcome = MISSED if MISSED in outcomes else UNDECIDED if UNDECIDED in outcomes else MET
    more = max((clause.more for clause in clauses), default=0) if outcome == UNDECIDED else 0
    would = f"{_more(more, metric)} would tell" if more else "a difference that matters would have shown"
    return CriterionCheck(
        criterion=criterion,
        observed=figure.figure,
        passed=outcome == MET,
        reason=f"{metric.name} is {_between(figure.figure, figure.low, figure.high)}: "
        + "; ".join(clause.text for clause in clauses)
        + (f"; {would}" if outcome == UNDECIDED else ""),
        outcome=outcome,
        low=figure.low,
        high=figure.high,
        more_examples=more if more and metric.on == "holdout" else None,
        gain=_gain(criterion, metric, alpha, rules),
    )


def _gain(criterion: Criterion, metric: Measured, alpha: float, rules: _Rules) -> Gain | None:
    """Return the advantage over the champion on the held-out rows, if ``criterion`` asks for one and it is a
    share of questions. The error is at least that of one row: equal answers do not prove equal models."""
    if metric.unit != "fraction" or metric.on != "holdout":
        return None
    if all(role is not Role.CHAMPION for role, *_ in _bounds(criterion, metric, rules.spent)):
        return None
    found = metric.against(Role.CHAMPION, alpha=alpha, seed=rules.seed)
    if found is None:
        return None
    error = max(found.spread / found.rows**0.5, 1 / found.rows)
    return Gain(difference=found.difference, error=error, of="holdout")


def _check_labels(criterion: Criterion, metric: Measured, seed: int) -> CriterionCheck:
    """Check a bound on single labels: it is missed where more than it is shown to be lost, and else met."""
    bound, parts = criterion.over_champion or 0.0, of_labels(metric)
    if criterion.label is not None:
        parts = {label: one for label, one in parts.items() if label == criterion.label}
    alpha = _of_refusal(criterion, 1)
    found = together(parts, alpha=alpha, seed=seed)
    lost = [label for label, one in found.items() if bound - one.high - metric.repeat_spread > _SLACK]
    if bound == metric.repeat_spread == 0 and metric.test == "proportion":
        lost = shown_worse(parts, alpha=alpha)
    worst = min(found, key=lambda label: found[label].high, default=None)
    said = [_of_label(label, parts[label], found.get(label)) for label in lost or ([worst] if worst else [])]
    shown = (
        "is shown to lose more than"
        if lost
        else "is the worst of its labels, and not shown to lose more than"
    )
    reason = f"{metric.name} of {'; '.join(said)} {shown} {_number(abs(bound))}"
    if not said:
        reason = f"{criterion.title}: there is no champion, or no label has enough rows to show a loss"
    return CriterionCheck(
        criterion=criterion,
        observed=parts[worst].figure_of(Role.CANDIDATE) if worst else None,
        passed=not lost,
        reason=reason,
        outcome=MISSED if lost else MET,
    )


def _of_label(label: str, part: Measured, advantage: Advantage | None) -> str:
    figures = f"{_number(part.figure_of(Role.CANDIDATE))} against {_number(part.figure_of(Role.CHAMPION))}"
    ends = (
        ""
        if advantage is None
        else f", {_between(advantage.difference, advantage.low, advantage.high, signed=True)}"
    )
    return f"{label} ({figures} of {len(part.clusters)} rows{ends})"


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
        yield _Clause(outcome, f"{_VERBS[outcome]} the {noun} of {_number(bound)}", more)


def _relative(criterion: Criterion, metric: Measured, alpha: float, rules: _Rules) -> Iterator[_Clause]:
    for role, bound, asked in _bounds(criterion, metric, rules.spent):
        advantage = metric.against(role, alpha=alpha, seed=rules.seed)
        if advantage is None:
            missing = f"there is no {role.value} to be {_number(bound)} better than"
            yield _Clause(MET if role is Role.CHAMPION else MISSED, missing)
            continue
        theirs = metric.figure_of(role)
        distance = max(abs(bound), _smallest(rules.resolution, metric, theirs))
        rival = None
        if role is Role.CHAMPION:
            rival = metric.against(role, alpha=_of_refusal(criterion, rules.rivals), seed=rules.seed)
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
            worse=None if rival is None else rival.high + metric.repeat_spread < -_SLACK,
        )
        outcome, more = claim.outcome()
        if outcome == MISSED and rival is not None and claim.worse:
            yield _Clause(outcome, _worse(rival, theirs, asked))
        else:
            yield _Clause(outcome, _words(advantage, role, theirs, outcome, asked), more)


def _of_refusal(criterion: Criterion, rivals: int) -> float:
    """Return the level at which a model counts as worse than the champion: the criterion's significance, but
    at most ``ALPHA``, since by .5 every second equal model would be refused."""
    return min(level_of(criterion, on_holdout=False), ALPHA) / rivals


def _bounds(criterion: Criterion, metric: Measured, spent: float) -> Iterator[tuple[Role, float, str]]:
    """Yield the contestant, the bound, and the words for it."""
    if criterion.over_base is not None:
        yield Role.BASE, criterion.over_base, f"the {_number(criterion.over_base, signed=True)} asked for"
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
    if not spent or not limited or metric.unit != "fraction" or metric.on != "holdout":
        return declared, f"the {_number(declared, signed=True)} asked for"
    bound = min(0.0, declared + spent)
    return bound, (
        f"the {_number(bound, signed=True)} asked for (it may lose {_number(-declared)}, "
        f"of which {_number(spent)} may be lost already)"
    )


def _smallest(resolution: float, metric: Measured, figure: float) -> float:
    """Return the smallest difference that matters, in the metric's unit: at least the difference between two
    measurements of one model."""
    span = metric.highest - metric.lowest
    smallest = resolution * (span if span < float("inf") else max(abs(figure), _SLACK))
    return max(smallest, metric.repeat_spread)


def _implied(metric: Measured, bound: float) -> float:
    """Return the spread of rows with mean ``bound`` if each is all or nothing. The observed spread of a few
    equal rows would be too small for planning."""
    span = metric.highest - metric.lowest
    if metric.test != "proportion" or not 0 < span < float("inf"):
        return 0.0
    share = min(1.0, max(0.0, (bound - metric.lowest) / span))
    return span * (share * (1 - share)) ** 0.5


_VERBS = {MET: "meets", MISSED: "misses", UNDECIDED: "cannot be told from"}


def _words(advantage: Advantage, role: Role, theirs: float, outcome: str, asked: str) -> str:
    gained = _between(advantage.difference, advantage.low, advantage.high, signed=True)
    return f"{gained} against the {role.value}'s {_number(theirs)} {_VERBS[outcome]} {asked}"


def _worse(advantage: Advantage, theirs: float, asked: str) -> str:
    lost = _between(advantage.difference, advantage.low, advantage.high, signed=True)
    return (
        f"{lost} against the champion's {_number(theirs)} is shown to be worse than the champion, and "
        f"{asked} is not shown"
    )


def _more(count: int, metric: Measured) -> str:
    rows, clusters = len(metric.clusters), len(np.unique(metric.clusters))
    if metric.on == "holdout" and clusters < rows:
        # rows of customers that the holdout has already would tell little
        count = ceil(count * clusters / rows)
        return "one more customer or document" if count == 1 else f"about {count} more customers or documents"
    nouns = {
        "holdout": ("held-out row", "held-out rows"),
        "regression": ("regression item", "regression items"),
        "judge": ("reviewed pair", "reviewed pairs"),
        "retrieval": ("question whose document is known", "questions whose document is known"),
    }
    one, several = nouns.get(metric.on, (f"question of {metric.on}", f"questions of {metric.on}"))
    return f"one more {one}" if count == 1 else f"about {count} more {several}"


def _between(figure: float, low: float, high: float, *, signed: bool = False) -> str:
    one, two, three = (_number(value, signed=signed) for value in (figure, low, high))
    return f"{one} ({two} to {three})"


def _number(value: float, *, signed: bool = False) -> str:
    text = f"{value:.3g}" if abs(value) < 1e6 else f"{value:.3e}"
    return f"+{text}" if signed and value >= 0 else text
