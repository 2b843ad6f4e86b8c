"""Decides whether a turn helped, by the traffic of its alarms before and after.

The difference of two rates has Newcombe's interval (R. G. Newcombe, "Interval estimation for the difference
between independent proportions", Statistics in Medicine 17, 1998, method 10), which holds for small counts.
Counts and time decide when to compare, never the figures themselves, so there is only one comparison. Four
figures share ``ERROR`` (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import sqrt
from statistics import NormalDist

from tunewheel_contracts.events.monitoring import TurnCompleted
from tunewheel_contracts.formats.drift_spec import DriftSpec

from tunewheel_monitor.turns.counting import Counts, State, as_figures, counted
from tunewheel_monitor.turns.facts import NEXT_STEPS, OF_LABEL, OUTCOMES, OpenTurn, Raised

ERROR = 0.05
"""The probability that any of the four intervals misses its true difference."""
FEWEST_QUESTIONS = 30
FEWEST_RATINGS = 10
RATINGS_AWAITED = 30
PATIENCE = timedelta(days=3)
"""How long after the promotion the comparison waits for traffic and ratings."""
USEFUL = 0.1
"""A fall of a rate by so much, or by half of the rate if that is less, is a useful improvement."""


@dataclass(frozen=True, slots=True)
class Change:
    """The change of one rate: after minus before. Every rate is of something bad."""

    name: str
    before: tuple[float, float]
    after: tuple[float, float]
    """(bad, total)."""
    low: float
    high: float

    @property
    def is_better(self) -> bool:
        return self.high < 0

    @property
    def is_worse(self) -> bool:
        return self.low > 0

    @property
    def is_not_better(self) -> bool:
        """Whether the interval excludes a useful improvement. A wide interval excludes nothing: that too
        little is known does not show that nothing changed."""
        bad, total = self.before
        return self.low > -min(USEFUL, bad / total / 2)

    def __str__(self) -> str:
        (bad, total), (bad_before, total_before) = self.after, self.before
        now, then = bad / total, bad_before / total_before
        return (
            f"{self.name}: {then:.1%} of {total_before:.0f} before, {now:.1%} of {total:.0f} after; "
            f"{100 * (now - then):+.1f} points ({100 * self.low:+.1f} to {100 * self.high:+.1f})"
        )


def conclude(state: State, open_turn: OpenTurn, spec: DriftSpec, now: datetime) -> TurnCompleted | None:
    """Return the end of a turn; None: it goes on, or there is too little traffic after the promotion."""
    course, report = open_turn.turn.course, open_turn.report
    if course.end in OUTCOMES:
        return report
    if course.served_at is None or course.model_id is None:
        return None
    if not open_turn.alarms:
        return report
    before, after = _traffic(state, open_turn.alarms, course.model_id)
    closes, left_at = course.served_at + PATIENCE, course.event.time if course.end else None
    if left_at is None and now < closes and not _enough(before, after, spec):
        return None
    outcome, reasons = _judged(before, after)
    figures = {**as_figures(after)}
    for change in changes(before, after).values():
        figures |= {f"{change.name}_change_low": change.low, f"{change.name}_change_high": change.high}
    return report.model_copy(
        update={
            "outcome": outcome,
            "reasons": (*reasons, *_of_labels(report)),
            "next_step": NEXT_STEPS.get(outcome, ""),
            "before": {**report.before, **as_figures(before)},
            "after": {**report.after, **figures},
            "ended_at": max(min(now, closes, left_at or now), course.served_at, report.began_at),
        }
    )


def _of_labels(report: TurnCompleted) -> tuple[str, ...]:
    """Return a sentence for each label that an alarm may be about, so that no average hides it."""
    return tuple(
        f"{name.removeprefix(OF_LABEL)}: {report.before[name]:.0%} of its held-out rows right before, "
        f"{after:.0%} after"
        for name, after in report.after.items()
        if name.startswith(OF_LABEL)
    )


def changes(before: Counts, after: Counts) -> dict[str, Change]:
    """Return the changes, by name, of figures with enough items before and after."""
    pairs = {
        "novel": ((before.novel, before.measured), (after.novel, after.measured), FEWEST_QUESTIONS),
        "invalid": ((before.invalid, before.judged), (after.invalid, after.judged), FEWEST_QUESTIONS),
        "thumbs_down": ((before.down, before.rated), (after.down, after.rated), FEWEST_RATINGS),
        "label_disagreement": (
            (before.disagree, before.labelled),
            (after.disagree, after.labelled),
            FEWEST_RATINGS,
        ),
    }
    return {
        name: Change(name, then, now, *difference(now, then))
        for name, (then, now, fewest) in pairs.items()
        if min(then[1], now[1]) >= fewest
    }


def difference(
    now: tuple[float, float], then: tuple[float, float], *, error: float = ERROR / 4
) -> tuple[float, float]:
    """Return the interval of the difference ``now`` minus ``then`` of two rates, each (bad, total)."""
    quantile = NormalDist().inv_cdf(1 - error / 2)
    (p, low, high), (q, low_then, high_then) = _wilson(*now, quantile), _wilson(*then, quantile)
    return (
        p - q - sqrt((p - low) ** 2 + (high_then - q) ** 2),
        p - q + sqrt((high - p) ** 2 + (q - low_then) ** 2),
    )


def _wilson(bad: float, total: float, quantile: float) -> tuple[float, float, float]:
    rate, spread = bad / total, quantile**2 / total
    middle = (rate + spread / 2) / (1 + spread)
    half = quantile / (1 + spread) * sqrt(rate * (1 - rate) / total + spread / (4 * total))
    return rate, max(0.0, middle - half), min(1.0, middle + half)


def _traffic(state: State, alarms: Sequence[Raised], model_id: str) -> tuple[Counts, Counts]:
    """Return the traffic of ``alarms`` before ``model_id`` answered it, and since then: near the clusters'
    centroids, or all traffic if no alarm has one."""
    clusters = [
        alarm.alarm_id
        for alarm in alarms
        if alarm.alarm_id and alarm.cluster is not None and alarm.cluster.centroid
    ]
    earlier = {alarm.model_id for alarm in alarms} - {model_id}
    return counted(state, clusters, earlier), counted(state, clusters, {model_id})


def _enough(before: Counts, after: Counts, spec: DriftSpec) -> bool:
    wanted = max(FEWEST_QUESTIONS, min(spec.window, before.questions))
    rated = min(before.rated, RATINGS_AWAITED) if before.rated >= FEWEST_RATINGS else 0
    return after.questions >= wanted and after.rated >= rated


def _judged(before: Counts, after: Counts) -> tuple[str, tuple[str, ...]]:
    """Return outcome and reasons. A turn helped if answers got better and no figure got worse. That the
    questions are covered now does not prove that the answers are right."""
    found = changes(before, after)
    told = tuple(str(change) for change in found.values())
    if after.questions < FEWEST_QUESTIONS:
        few = f"{after.questions:.0f} of these questions came after the promotion; {FEWEST_QUESTIONS} tell"
        return "undecided", (few, *told)
    if any(change.is_worse for change in found.values()):
        return "did not help", told
    quality = [change for name, change in found.items() if name != "novel"]
    if any(change.is_better for change in quality):
        return "helped", told
    if "novel" in found and before.novel / before.measured > USEFUL and found["novel"].is_not_better:
        return "did not help", ("the questions are as novel to the new version as to the old", *told)
    rated = [found[name] for name in ("thumbs_down", "label_disagreement") if name in found]
    if not rated:
        few = "too few people rated answers before and after to tell whether they are better"
        return "undecided", (few, *told)
    if all(change.is_not_better for change in rated):
        return "did not help", ("people rate the answers as they did before", *told)
    return "undecided", ("the ratings are too few to tell", *told)
