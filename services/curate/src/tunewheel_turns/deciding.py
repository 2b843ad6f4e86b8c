"""The policy: which turn an alarm leads to, and what the turn waits for.

Pure. The time decides whether a gate is open. It enters no name, so every replica names the same request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from tunewheel_contracts.events.data import BuildReason
from tunewheel_planner.spending import Cost, next_month
from tunewheel_wheel.turn import TurnStage
from tunewheel_wheel.wheel import STALE

from tunewheel_turns.readiness import (
    RETRIES,
    answers_to,
    collects_labels,
    failed_in_a_row,
    follows,
    is_drift,
    is_ready,
    labels_needed,
    lasts_from,
    needs_a_person,
    to_mend,
)
from tunewheel_turns.state import (
    Alarm,
    State,
    ended_at,
    name_of,
    outcome_of,
    over_at,
    serves_against_alarms,
)

MOST_ALARMS = 64
"""The most alarms that a request can name (``DatasetRequested.alarm_ids``)."""
RETRY_AFTER = timedelta(hours=1)
"""The wait after the first failure of the machinery. It doubles with each further failure in a row."""
BY_STAGE = {
    TurnStage.BUILDING: "curate",
    TurnStage.WAITING: "train",
    TurnStage.TRAINING: "train",
    TurnStage.EVALUATING: "eval",
    TurnStage.REVIEW: "reviewers",
    TurnStage.UNDECIDED: "registry",
    TurnStage.PASSED: "registry",
}
"""By stage of a turn in flight: who brings it on. In the other stages the monitor judges its traffic."""
PEOPLE = ("annotators", "operator", "reviewers")
REMINDED = timedelta(days=7)


class Step(StrEnum):
    """What happens now about a project's open alarms."""

    CALM = "no alarm is open"
    NOTHING = "nothing follows"
    INVESTIGATE = "a person should look"
    IN_FLIGHT = "waits for the turn in flight"
    SETTLING = "waits until the alarm lasts"
    LABELS = "waits for labels"
    BROKEN = "a service needs a person"
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
        until = None if turn.stage is TurnStage.REVIEW else turn.news_at + state.stale
        return Decision(Step.IN_FLIGHT, evidence, _names(alarms), until)
    lasting = [alarm for alarm in alarms if now >= lasts_from(drift.turns, alarm)]
    if not lasting:
        until = min(lasts_from(drift.turns, alarm) for alarm in alarms)
        evidence = f"an alarm must stay open for {drift.turns.alarm_seconds:g} s"
        return Decision(Step.SETTLING, evidence, _names(alarms), until)
    ready = [alarm for alarm in lasting if is_ready(state, alarm)]
    labelled = any(collects_labels(state, alarm) for alarm in ready)
    if not ready or (not labelled and _labels_may_come(state, lasting, now)):
        return _missing(state, lasting)
    return _gated(state, ready, now)


def hold(state: State, reason: BuildReason, now: datetime) -> str | None:
    """Return why a version that is due because of new records must wait; None: it need not.

    Where ``drift.action`` is ``suggest``, every version after the first waits for a person. ``reason`` is
    COUNT or QUIET. Silence builds nothing while a turn collects labels: the turn will use them.
    Where turns need approval, neither reason builds while an alarm waits for it.
    """
    if (turn := state.in_flight(now, begun=True)) is not None:
        return f"one turn at a time: {name_of(turn)} is under way"
    if (spent := over_budget(state, now)) is not None:
        return spent
    if state.drift.action == "suggest" and any(turn.version for turn in state.turns):
        return "drift.action is suggest: `tunewheel dataset build` asks for a version"
    if not (state.drift.enabled and state.drift.rebuild):
        return None
    if state.drift.turns.approval:
        ready = [alarm for alarm in to_mend(state) if is_ready(state, alarm)]
        if ready:
            return f"{Step.APPROVAL.value}: {'; '.join(_reason(state, alarm) for alarm in ready)}"
    if reason is BuildReason.QUIET:
        collecting = [
            alarm for alarm in state.alarms if now - alarm.at < STALE and collects_labels(state, alarm)
        ]
        if collecting:
            return f"the labels belong to a turn: {'; '.join(_reason(state, alarm) for alarm in collecting)}"
    return None


def waits_for(state: State, decision: Decision, alarm: Alarm, now: datetime) -> str | None:
    """Return who or what ends the wait of an open alarm, as in ``AlarmAnswer``."""
    what, step = follows(state.drift.turns, alarm), decision.step
    if step is Step.NOTHING or what == "nothing" or answers_to(state, alarm).in_scope == 0:
        return None
    if what == "investigate":
        return "operator"
    if step is Step.IN_FLIGHT and (turn := state.in_flight(now)) is not None:
        # Turns of other alarms may follow each other: labels that nobody asked for would never come.
        others = turn not in state.turns_for(alarm) and not needs_a_person(state, alarm)
        if others and collects_labels(state, alarm) and not is_ready(state, alarm):
            return "annotators"
        return BY_STAGE.get(turn.stage, "monitor")
    if step is Step.SETTLING or now < lasts_from(state.drift.turns, alarm):
        return "clock"
    if not is_ready(state, alarm):
        lacks_labels = collects_labels(state, alarm) and not needs_a_person(state, alarm)
        return "annotators" if lacks_labels else "operator"
    by_step = {Step.LABELS: "annotators", Step.COOLDOWN: "clock", Step.TURN: "curate"}
    return by_step.get(step, "operator")


def reminder(state: State, waits: Mapping[str, str | None], now: datetime) -> tuple[int, datetime | None]:
    """Return how often people were reminded, and when they are reminded next. ``waits``: by alarm, who or
    what ends its wait. Weeks count from the oldest alarm that people wait on, so they survive restarts, and
    all replicas count alike."""
    since = min((alarm.at for alarm in state.alarms if waits[alarm.name] in PEOPLE), default=None)
    if since is None:
        return 0, None
    weeks = max(0, (now - since) // REMINDED)
    return weeks, since + (weeks + 1) * REMINDED


def over_budget(state: State, now: datetime) -> str | None:
    """Return which monthly limit the next run would exceed, and by how much; None: it exceeds none."""
    budget = state.drift.turns.budget
    spent = state.spent(now)
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
    cool = (turn for turn in state.turns if is_drift(turn) or serves_against_alarms(turn))
    over = (over_at(turn) or ended_at(turn) for turn in cool)
    last = max((at for at in over if at is not None), default=None)
    cooled = last and last + timedelta(seconds=policy.cooldown_seconds)
    until = max((at for at in (cooled, *(_retry_at(state, alarm) for alarm in ready)) if at), default=now)
    if now < until:
        return Decision(Step.COOLDOWN, f"until {until:%Y-%m-%d %H:%M} UTC", names, until)
    if (spent := over_budget(state, now)) is not None:
        return Decision(Step.BUDGET, spent, names, next_month(now))
    evidence = "; ".join(_reason(state, alarm) for alarm in ready)
    if policy.approval or state.drift.action == "suggest":
        return Decision(Step.APPROVAL, evidence, names)
    first = ready[0]
    tried = state.turns_for(first)
    request = f"{first.name} again, after {tried[-1].request.id}" if tried else first.name
    return Decision(Step.TURN, evidence, names[:MOST_ALARMS], request=request)


def _retry_at(state: State, alarm: Alarm) -> datetime | None:
    """Return when the machinery may try the turn of ``alarm`` again; None: it did not fail the last one."""
    failed = failed_in_a_row(state, alarm)
    if not failed or (end := ended_at(failed[0])) is None:
        return None
    return end + RETRY_AFTER * 2 ** (min(len(failed), 1 + RETRIES) - 1)


def _labels_may_come(state: State, alarms: Sequence[Alarm], now: datetime) -> bool:
    """Return whether a turn should wait for labels that another alarm asks for. Often both alarms have one
    cause, and a version without those labels would not learn about it."""
    return any(
        collects_labels(state, alarm) and not state.turns_for(alarm) and now - alarm.at < STALE
        for alarm in alarms
    )


def _missing(state: State, alarms: Sequence[Alarm]) -> Decision:
    """Return what ``alarms`` wait for: a service that does not work, labels, or a change since the last
    try."""
    if broken := [alarm for alarm in alarms if needs_a_person(state, alarm)]:
        return Decision(Step.BROKEN, "; ".join(_reason(state, alarm) for alarm in broken), _names(broken))
    waiting = [alarm for alarm in alarms if collects_labels(state, alarm)]
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
        if lacking := sum(count > 0 for count in answers_to(state, alarm).lacking.values()):
            yield f"{lacking} of its topics lack answers"
    else:
        yield what
    if tried := state.turns_for(alarm):
        ended, why = outcome_of(tried[-1].course, tried[-1].completed)
        ended = (
            ended
            or f"is {tried[-1].stage.value} and has no event since {tried[-1].news_at:%Y-%m-%d %H:%M} UTC"
        )
        yield f"{name_of(tried[-1])} {ended}" + (f" ({why})" if why else "")


def _nobody_builds(state: State) -> Decision:
    wanted = {follows(state.drift.turns, alarm) for alarm in state.alarms}
    step = Step.INVESTIGATE if "investigate" in wanted else Step.NOTHING
    told = (f"{alarm.name} ({alarm.detector}): {_unbuilt(state, alarm)}" for alarm in state.alarms)
    return Decision(step, "; ".join(told), _names(state.alarms))


def _unbuilt(state: State, alarm: Alarm) -> str:
    outside = answers_to(state, alarm).in_scope <= 0
    return "people called its questions out of scope" if outside else alarm.action


def _names(alarms: Sequence[Alarm]) -> tuple[str, ...]:
    return tuple(alarm.name for alarm in alarms)
