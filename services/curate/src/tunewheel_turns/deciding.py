"""The policy: which turn an alarm leads to, and what the turn waits for.

Pure. The time decides whether a gate is open. It enters no name, so every replica names the same request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import takewhile

from tunewheel_contracts.events.data import BuildReason
from tunewheel_contracts.formats.drift_spec import Follows, TurnPolicy
from tunewheel_planner.spending import Cost, next_month, spent_in_month
from tunewheel_wheel.turn import Turn
from tunewheel_wheel.wheel import STALE

from tunewheel_turns.state import (
    MACHINERY,
    Alarm,
    State,
    ended_at,
    name_of,
    outcome,
    outcome_of,
    over_at,
    serves_against_alarms,
)

MOST_ALARMS = 64
"""The most alarms that a request can name (``DatasetRequested.alarm_ids``)."""
RETRIES = 3
"""How many turns of an alarm the machinery may fail without using up labels or the try. Every further failure
counts as a try: a fault that comes back must not cost GPU hours for ever."""
RETRY_AFTER = timedelta(hours=1)
"""The wait after the first failure of the machinery. It doubles with each further failure in a row."""
BY_ACTION: dict[str, Follows] = {
    "collect_labels": "collect_labels",
    "retrain": "retrain",
    "update_documents": "investigate",
    "investigate": "investigate",
}
UNKNOWN_ACTION: Follows = "investigate"


class Step(StrEnum):
    """What happens now about a project's open alarms."""

    CALM = "no alarm is open"
    NOTHING = "nothing follows"
    INVESTIGATE = "a person should look"
    IN_FLIGHT = "waits for the turn in flight"
    SETTLING = "waits until the alarm lasts"
    LABELS = "waits for labels"
    TRIED = "was tried already"
    COOLDOWN = "cools down"
    BUDGET = "the budget is spent"
    APPROVAL = "waits for approval"
    TURN = "a turn is due"


@dataclass(frozen=True, slots=True)
class Decision:
    """A step, and the evidence for it."""

    step: Step
    evidence: str = ""
    alarms: tuple[str, ...] = ()
    """The names of the alarms that the step is about, oldest first."""
    until: datetime | None = None
    """When waiting ends by itself; None: something else must happen first."""
    request: str = ""
    """The name of the request, where the step is ``TURN``. It follows from alarms and earlier turns, so every
    replica gives the same name."""


def decide(state: State, now: datetime) -> Decision:
    """Return the step that the open alarms of a project lead to at ``now``."""
    if not state.alarms:
        return Decision(Step.CALM)
    drift, everyone = state.drift, _names(state.alarms)
    if not (drift.enabled and drift.rebuild):
        off = "drift.rebuild" if drift.enabled else "drift.enabled"
        return Decision(Step.NOTHING, f"{off} is false", everyone)
    alarms = to_mend(state)
    if not alarms:
        return _nobody_builds(state)
    if (turn := state.in_flight(now)) is not None:
        served = ended_at(turn) is not None
        goes_on = "serves, and whether it helped is not known yet" if served else "has not ended"
        evidence = f"{name_of(turn)} {goes_on}; its latest event is of {turn.news_at:%Y-%m-%d %H:%M} UTC"
        return Decision(Step.IN_FLIGHT, evidence, _names(alarms), turn.news_at + state.stale)
    lasting = [alarm for alarm in alarms if now >= _lasts_from(drift.turns, alarm)]
    if not lasting:
        until = min(_lasts_from(drift.turns, alarm) for alarm in alarms)
        evidence = f"an alarm must stay open for {drift.turns.alarm_seconds:g} s"
        return Decision(Step.SETTLING, evidence, _names(alarms), until)
    ready = [alarm for alarm in lasting if _is_ready(state, alarm)]
    labelled = any(_collects(state, alarm) for alarm in ready)
    if not ready or (not labelled and _labels_may_come(state, lasting, now)):
        return _missing(state, lasting)
    return _gated(state, ready, now)


def hold(state: State, reason: BuildReason, now: datetime) -> str | None:
    """Return why a version that is due because of new records must wait; None: it need not.

    ``reason`` is COUNT or QUIET. Silence builds nothing while a turn collects labels: the turn will use them.
    Where turns need approval, neither reason builds while an alarm waits for it.
    """
    if (turn := state.in_flight(now, begun=True)) is not None:
        return f"one turn at a time: {name_of(turn)} is under way"
    if (spent := over_budget(state, now)) is not None:
        return spent
    if not (state.drift.enabled and state.drift.rebuild):
        return None
    if state.drift.turns.approval:
        ready = [alarm for alarm in to_mend(state) if _is_ready(state, alarm)]
        if ready:
            return f"{Step.APPROVAL.value}: {'; '.join(_reason(state, alarm) for alarm in ready)}"
    if reason is BuildReason.QUIET:
        collecting = [alarm for alarm in state.alarms if now - alarm.at < STALE and _collects(state, alarm)]
        if collecting:
            return f"the labels belong to a turn: {'; '.join(_reason(state, alarm) for alarm in collecting)}"
    return None


def to_mend(state: State) -> list[Alarm]:
    """Return the open alarms for which a version should be built, now or later, oldest first."""
    return [
        alarm for alarm in state.alarms if follows(state.drift.turns, alarm) in ("collect_labels", "retrain")
    ]


def follows(policy: TurnPolicy, alarm: Alarm) -> Follows:
    """Return what ``alarm`` leads to: the spec's ``follow`` for its detector, family or action, else the
    default.

    ``collect_labels`` needs a place near which labels count; without one a person must investigate. The
    family's entry does not apply to an alarm that asks for documents: training writes no documents.
    """
    family = () if alarm.action == "update_documents" else (alarm.family,)
    keys = [key for key in (alarm.detector, *family, alarm.action) if key in policy.follow]
    what = policy.follow[keys[0]] if keys else BY_ACTION.get(alarm.action, UNKNOWN_ACTION)
    return "investigate" if what == "collect_labels" and not alarm.places else what


def over_budget(state: State, now: datetime) -> str | None:
    """Return which monthly limit the next run would exceed, and by how much; None: it exceeds none."""
    budget = state.drift.turns.budget
    spent = spent_in_month(state.runs, now)
    coming = state.runs[-1].cost if state.runs else Cost()
    for name in ("gpu_hours", "dollars"):
        limit = getattr(budget, name)
        so_far, more = getattr(spent, name), getattr(coming, name)
        if limit is not None and so_far + more > limit:
            return (
                f"budget spent: {so_far:.2f} of {limit:g} {name} this month, the next run takes about "
                f"{more:.2f}; raise drift.turns.budget.{name}, or run `tunewheel dataset build`"
            )
    return None


def _gated(state: State, ready: Sequence[Alarm], now: datetime) -> Decision:
    """Return the turn for the alarms ``ready``, or the gate that blocks it: cooldown, budget or approval."""
    policy, names = state.drift.turns, _names(ready)
    cool = (turn for turn in state.turns if _is_drift(turn) or serves_against_alarms(turn))
    over = (over_at(turn) or ended_at(turn) for turn in cool)
    last = max((at for at in over if at is not None), default=None)
    cooled = last and last + timedelta(seconds=policy.cooldown_seconds)
    until = max((at for at in (cooled, *(_retry_at(state, alarm) for alarm in ready)) if at), default=now)
    if now < until:
        return Decision(Step.COOLDOWN, f"until {until:%Y-%m-%d %H:%M} UTC", names, until)
    if (spent := over_budget(state, now)) is not None:
        return Decision(Step.BUDGET, spent, names, next_month(now))
    if policy.approval:
        return Decision(
            Step.APPROVAL, "run `tunewheel dataset build`, or ask for a version in the console", names
        )
    first, evidence = ready[0], "; ".join(_reason(state, alarm) for alarm in ready)
    tried = state.turns_for(first)
    request = f"{first.name} again, after {tried[-1].request.id}" if tried else first.name
    return Decision(Step.TURN, evidence, names[:MOST_ALARMS], request=request)


def _retry_at(state: State, alarm: Alarm) -> datetime | None:
    """Return when the machinery may try the turn of ``alarm`` again; None: it did not fail the last one."""
    failed = list(takewhile(lambda turn: outcome(turn) in MACHINERY, reversed(state.turns_for(alarm))))
    if not failed or (end := ended_at(failed[0])) is None:
        return None
    return end + RETRY_AFTER * 2 ** (min(len(failed), 1 + RETRIES) - 1)


def _tries(state: State, alarm: Alarm) -> list[Turn]:
    """Return the turns of ``alarm`` that got a verdict about the data, or that may still get one; and of the
    turns that the machinery failed those beyond ``RETRIES``."""
    turns = state.turns_for(alarm)
    free = [turn for turn in turns if outcome(turn) in MACHINERY][:RETRIES]
    return [turn for turn in turns if turn not in free]


def _is_drift(turn: Turn) -> bool:
    return turn.request.data.reason is BuildReason.DRIFT


def _is_ready(state: State, alarm: Alarm) -> bool:
    if _collects(state, alarm):
        return state.labelled.get(alarm.name, 0) >= labels_needed(state, alarm)
    tried = _tries(state, alarm)
    return not tried or _trains_otherwise(state, tried)


def _collects(state: State, alarm: Alarm) -> bool:
    return follows(state.drift.turns, alarm) == "collect_labels"


def _labels_may_come(state: State, alarms: Sequence[Alarm], now: datetime) -> bool:
    """Return whether a turn should wait for labels that another alarm asks for. Often both alarms have one
    cause, and a version without those labels would not learn about it."""
    return any(
        _collects(state, alarm) and not state.turns_for(alarm) and now - alarm.at < STALE for alarm in alarms
    )


def labels_needed(state: State, alarm: Alarm) -> int:
    """Return how many labels the next turn for ``alarm`` needs: ``min_labels`` more after each try, so that
    the same data is not tried twice. A changed training spec allows one more try with the same labels. A
    person's command that gave no version is no try, nor is a failure of the machinery (``_tries``)."""
    tried = [turn for turn in _tries(state, alarm) if turn.dataset_id or _is_drift(turn)]
    again = bool(tried) and _trains_otherwise(state, tried)
    return state.drift.turns.min_labels * (len(tried) + (0 if again else 1))


def _trains_otherwise(state: State, tried: Sequence[Turn]) -> bool:
    """Return whether the training spec changed since the last of ``tried``."""
    answer = (tried[-1].version or tried[-1].course.event).data
    if (training := getattr(answer, "training_sha256", None)) is None:  # events of earlier releases
        return getattr(answer, "spec_sha256", None) != state.spec_sha256
    return training != state.training_sha256


def _missing(state: State, alarms: Sequence[Alarm]) -> Decision:
    """Return what ``alarms`` wait for: labels, or a change since the last try."""
    waiting = [alarm for alarm in alarms if _collects(state, alarm)]
    if waiting:
        return Decision(Step.LABELS, "; ".join(_reason(state, alarm) for alarm in waiting), _names(waiting))
    told = "; ".join(_reason(state, alarm) for alarm in alarms)
    remedy = (
        "change what is trained (base_model, task, dataset, train, evaluation.lm_eval, retrieval.training), "
        "publish other records, or run `tunewheel dataset build` to try the same again"
    )
    return Decision(Step.TRIED, f"{told}; {remedy}", _names(alarms))


def _reason(state: State, alarm: Alarm) -> str:
    return f"{alarm.name} ({alarm.detector}): " + ", ".join(_parts(state, alarm))


def _parts(state: State, alarm: Alarm) -> Iterator[str]:
    what = follows(state.drift.turns, alarm)
    if what == "collect_labels":
        yield f"{state.labelled.get(alarm.name, 0)} of {labels_needed(state, alarm)} labels near the cluster"
    else:
        yield what
    if tried := state.turns_for(alarm):
        ended, why = outcome_of(tried[-1].course, tried[-1].completed)
        yield f"{name_of(tried[-1])} {ended}" + (f" ({why})" if why else "")


def _nobody_builds(state: State) -> Decision:
    wanted = {follows(state.drift.turns, alarm) for alarm in state.alarms}
    step = Step.INVESTIGATE if "investigate" in wanted else Step.NOTHING
    told = (f"{alarm.name} ({alarm.detector}): {alarm.action}" for alarm in state.alarms)
    return Decision(step, "; ".join(told), _names(state.alarms))


def _lasts_from(policy: TurnPolicy, alarm: Alarm) -> datetime:
    return alarm.at + timedelta(seconds=policy.alarm_seconds)


def _names(alarms: Sequence[Alarm]) -> tuple[str, ...]:
    return tuple(alarm.name for alarm in alarms)
