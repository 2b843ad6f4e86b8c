"""Decides whether a turn helped, by three witnesses:

1. the answers of champion and candidate to the same held-out prompts of the alarms, before the rollout: the
   paired difference has Tango's exact interval (``tunewheel_verdicts.proportions``);
2. the answers of both to the alarms' questions of the same hours, while the candidate was in canary;
3. the traffic of the alarms before and after, with people's ratings.

The difference of two unpaired rates has Newcombe's interval (R. G. Newcombe, "Interval estimation for the
difference between independent proportions", Statistics in Medicine 17, 1998, method 10), which holds for
small counts. Counts and time decide when to compare, never the figures themselves, so there is only one
comparison. The held-out prompts have half of ``ERROR``; the other figures share the other half (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil, sqrt
from statistics import NormalDist

from tunewheel_contracts.events.turns import TurnCompletedV2
from tunewheel_contracts.formats.drift_spec import DriftSpec
from tunewheel_contracts.formats.scorecard import RequestedRows
from tunewheel_verdicts.proportions import paired_low

from tunewheel_monitor.turns.counting import Counts, State, as_figures, beside, counted, in_canary
from tunewheel_monitor.turns.facts import NEXT_STEPS, OUTCOMES, OpenTurn, Raised

ERROR = 0.04
"""The probability that any interval misses its true difference; half of it at each end."""
FIGURES = 7
"""The figures of the traffic before and after, and those of the canary."""
FEWEST_PROMPTS = 16
"""With fewer held-out prompts nothing is concluded from them."""
HELD_OUT = 1 / 3
"""The share of an alarm's answered prompts that curate holds out (``REQUESTED``)."""
NO_METRIC = ", and a task of free text needs a judge (`evaluation.judge`)"
CANARY = "canary_"
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


def conclude(
    state: State, open_turn: OpenTurn, spec: DriftSpec, now: datetime, *, guarded: bool = False
) -> TurnCompletedV2 | None:
    """Return the end of a turn; None: it goes on, its model is still ``guarded``, or there is too little
    traffic after the promotion."""
    course, report = open_turn.turn.course, open_turn.report
    if course.end in OUTCOMES:
        return report
    if course.served_at is None or course.model_id is None:
        return None
    if not open_turn.alarms:
        return report
    before, after, champion, candidate = _traffic(state, open_turn.alarms, course.model_id)
    closes, left_at = course.served_at + PATIENCE, course.event.time if course.end else None
    if left_at is None and (guarded or (now < closes and not _enough(before, after, spec))):
        return None
    prompts = _all_prompts(open_turn.prompts)
    found = paired(prompts) | changes(champion, candidate, CANARY) | changes(before, after)
    outcome, reasons = judged(found, before)
    if outcome == "undecided":
        reasons = (_too_few(open_turn, prompts, after), *reasons)
    figures = {**as_figures(candidate, CANARY), **as_figures(after)}
    for change in found.values():
        figures |= {f"{change.name}_change_low": change.low, f"{change.name}_change_high": change.high}
    return report.model_copy(
        update={
            "outcome": outcome,
            "reasons": reasons,
            "next_step": NEXT_STEPS.get(outcome, ""),
            "before": report.before | as_figures(champion, CANARY) | as_figures(before) | _wrong(prompts, 0),
            "after": report.after | figures | _wrong(prompts, 1),
            "ended_at": max(min(now, closes, left_at or now), course.served_at, report.began_at),
        }
    )


def _all_prompts(prompts: Sequence[RequestedRows]) -> tuple[int, int, int, int]:
    """Return the number of held-out prompts, and of those that both models, the champion alone and the
    candidate alone answered rightly."""
    counts = [(one.prompts, one.both_right, one.only_champion, one.only_candidate) for one in prompts]
    return tuple(map(sum, zip(*counts, strict=True))) if counts else (0, 0, 0, 0)  # type: ignore[return-value]


def _wrong(prompts: tuple[int, int, int, int], side: int) -> dict[str, float]:
    """Return the figures of champion (``side`` 0) or candidate (1) on the held-out prompts."""
    total, both, *alone = prompts
    return {"prompts": float(total), "wrong": 1 - (both + alone[side]) / total} if total else {}


def paired(prompts: tuple[int, int, int, int]) -> dict[str, Change]:
    """Return the change of wrong answers to held-out prompts, if these are enough."""
    total, both, champion, candidate = prompts
    if total < FEWEST_PROMPTS:
        return {}
    then, now = (float(total - both - alone) for alone in (champion, candidate))
    low, high = (
        paired_low(*alone, total, alpha=ERROR / 4) for alone in ((champion, candidate), (candidate, champion))
    )
    return {"wrong": Change("wrong", (then, total), (now, total), low, -high)}


def changes(before: Counts, after: Counts, prefix: str = "") -> dict[str, Change]:
    """Return the changes, by name, of figures with enough items before and after. Between champion and
    candidate in canary nothing can be said of novelty: both are asked the same."""
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
        prefix + name: Change(prefix + name, then, now, *difference(now, then))
        for name, (then, now, fewest) in pairs.items()
        if min(then[1], now[1]) >= fewest and (not prefix or name != "novel")
    }


def difference(
    now: tuple[float, float], then: tuple[float, float], *, error: float = ERROR / 2 / FIGURES
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


def _traffic(state: State, alarms: Sequence[Raised], model_id: str) -> tuple[Counts, Counts, Counts, Counts]:
    """Return the traffic of ``alarms`` before ``model_id`` answered it, and since then; and what the champion
    and ``model_id`` answered in its canary. It is the traffic near the clusters' centroids, or all traffic if
    no alarm has one."""
    clusters = [
        alarm.alarm_id
        for alarm in alarms
        if alarm.alarm_id and alarm.cluster is not None and alarm.cluster.centroid
    ]
    models = (
        {alarm.model_id for alarm in alarms} - {model_id},
        {model_id},
        {beside(model_id)},
        {in_canary(model_id)},
    )
    return tuple(counted(state, clusters, some) for some in models)  # type: ignore[return-value]


def _enough(before: Counts, after: Counts, spec: DriftSpec) -> bool:
    wanted = max(FEWEST_QUESTIONS, min(spec.window, before.questions))
    rated = min(before.rated, RATINGS_AWAITED) if before.rated >= FEWEST_RATINGS else 0
    return after.questions >= wanted and after.rated >= rated


def judged(found: Mapping[str, Change], before: Counts) -> tuple[str, tuple[str, ...]]:
    """Return outcome and reasons. A turn helped if answers got better and none got worse. That the questions
    are covered now does not prove that the answers are right. It did not help if answers got worse, or if no
    witness that says whether they are right leaves a useful improvement possible."""
    told = tuple(str(change) for change in found.values())
    quality = [change for name, change in found.items() if name != "novel"]
    if any(change.is_worse for change in quality):
        return "did not help", told
    if any(change.is_better for change in quality):
        return "helped", told
    right = [change for change in quality if not change.name.endswith("invalid")]
    if right and all(change.is_not_better for change in right):
        return "did not help", told
    novel = found.get("novel")
    if "wrong" not in found and novel and before.novel / before.measured > USEFUL and novel.is_not_better:
        return "did not help", ("the questions are as novel to the new version as to the old", *told)
    return "undecided", told


def _too_few(open_turn: OpenTurn, prompts: tuple[int, int, int, int], after: Counts) -> str:
    """Return what is missed to tell whether a turn helped."""
    if all(alarm.suggested_action != "collect_labels" for alarm in open_turn.alarms):
        return (
            f"{after.questions:.0f} of these questions and {after.rated:.0f} ratings came after the promotion"
        )
    if prompts[0] >= FEWEST_PROMPTS:
        return f"{prompts[0]} held-out prompts of the alarm are too few for a difference of this size"
    more = ceil((FEWEST_PROMPTS - prompts[0]) / HELD_OUT)
    return (
        f"{prompts[0]} held-out prompts of the alarm tell who is right, where {FEWEST_PROMPTS} are needed: "
        f"about {more} more of its prompts need an answer{'' if prompts[0] else NO_METRIC}"
    )
