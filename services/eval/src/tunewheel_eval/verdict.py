"""The verdict: every declared criterion against what was measured, in words that say both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.scorecard import Comparison, Contestant, CriterionCheck, Role
from tunewheel_outputs.metrics import known_metrics

_SLACK = 1e-9
"""A bound met exactly on paper must not fail by a rounding of binary fractions."""


@dataclass(frozen=True, slots=True)
class _Clause:
    met: bool
    text: str


def judge(
    criteria: Sequence[Criterion], contestants: Sequence[Contestant], comparisons: Sequence[Comparison]
) -> tuple[CriterionCheck, ...]:
    """Check each criterion. Bounds against a champion count as met where there is none yet."""
    by_role = {contestant.role: contestant for contestant in contestants}
    return tuple(_check(criterion, by_role, comparisons) for criterion in criteria)


def _check(
    criterion: Criterion, by_role: dict[Role, Contestant], comparisons: Sequence[Comparison]
) -> CriterionCheck:
    name = criterion.metric
    observed = by_role[Role.CANDIDATE].metrics.get(name)
    if observed is None:
        reason = f"{name} was not measured: the project's task does not define it"
        return CriterionCheck(criterion=criterion, observed=None, passed=False, reason=reason)
    clauses = [
        *_absolute(criterion, observed),
        *_relative(criterion, observed, by_role),
        *_significant(criterion, by_role, comparisons),
    ]
    verdicts = "; ".join(clause.text for clause in clauses)
    return CriterionCheck(
        criterion=criterion,
        observed=observed,
        passed=all(clause.met for clause in clauses),
        reason=f"{name} is {_number(observed)}: {verdicts}",
    )


def _absolute(criterion: Criterion, observed: float) -> Iterator[_Clause]:
    if criterion.minimum is not None:
        met = observed >= criterion.minimum - _SLACK
        yield _Clause(met, f"{_met(met)} the minimum of {_number(criterion.minimum)}")
    if criterion.maximum is not None:
        met = observed <= criterion.maximum + _SLACK
        yield _Clause(met, f"{_met(met)} the maximum of {_number(criterion.maximum)}")


def _relative(criterion: Criterion, observed: float, by_role: dict[Role, Contestant]) -> Iterator[_Clause]:
    bounds = ((Role.BASE, criterion.over_base), (Role.CHAMPION, criterion.over_champion))
    for role, bound in bounds:
        if bound is None:
            continue
        if role not in by_role:
            yield _Clause(
                role is Role.CHAMPION, f"there is no {role.value} to be {_number(bound)} better than"
            )
            continue
        theirs = by_role[role].metrics.get(criterion.metric)
        if theirs is None:
            yield _Clause(False, f"the {role.value}'s was not measured")
            continue
        lower_is_better = known_metrics()[criterion.metric].lower_is_better
        advantage = theirs - observed if lower_is_better else observed - theirs
        met = advantage >= bound - _SLACK
        yield _Clause(
            met,
            f"{_number(advantage, signed=True)} against the {role.value}'s {_number(theirs)} "
            f"{_met(met)} the {_number(bound, signed=True)} asked for",
        )


def _significant(
    criterion: Criterion, by_role: dict[Role, Contestant], comparisons: Sequence[Comparison]
) -> Iterator[_Clause]:
    if criterion.significance is None:
        return
    against = Role.CHAMPION if Role.CHAMPION in by_role else Role.BASE
    comparison = _find(comparisons, criterion.metric, against)
    if comparison is None:
        yield _Clause(False, f"no test against the {against.value} was made")
        return
    met = comparison.p_value < criterion.significance
    asked = _number(criterion.significance)
    yield _Clause(
        met,
        f"p = {comparison.p_value:.3g} against the {against.value} {_met(met)} the significance of {asked}",
    )


def _find(comparisons: Sequence[Comparison], metric: str, against: Role) -> Comparison | None:
    return next((c for c in comparisons if c.metric == metric and c.against is against), None)


def _met(met: bool) -> str:
    return "meets" if met else "misses"


def _number(value: float, *, signed: bool = False) -> str:
    text = f"{value:.4g}" if abs(value) < 1e6 else f"{value:.3e}"
    return f"+{text}" if signed and value >= 0 else text
