"""Reports the alarms and turns of a project in words and as JSON, for ``tunewheel status`` and the
console."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.monitoring import AlarmAnswer, TurnCompleted, TurnDecided
from tunewheel_contracts.events.production import AlarmOpened, DriftDetected
from tunewheel_contracts.turn_status import TurnInFlight, TurnStatus

About = Literal["alarm", "decision", "turn in flight", "last turn", "to do"]
UNDECIDED = "curate has decided nothing about it yet"
FIGURES = ("effect", "effect_unit", "statistic", "statistic_name")
"""Figures of an alarm, which ``drift.detected`` has and ``alarm.opened`` has not."""


class Line(NamedTuple):
    """One line of the report for people."""

    about: About
    text: str


def report(status: TurnStatus, now: datetime) -> list[Line]:
    """Return the report, most urgent first; empty if there was no alarm and no turn."""
    lines: list[Line] = []
    decided = status.decision.data if status.decision is not None else None
    alarms = status.open_alarms
    answers = _answers(decided)
    lines += [Line("alarm", _alarm(name, one, answers.get(name), now)) for name, one in alarms.items()]
    if alarms and decided is not None:
        lines.append(Line("decision", f"curate: {_decision(decided)}"))
    lines += [Line("turn in flight", _in_flight(turn, now)) for turn in status.in_flight(now)]
    if status.last is not None:
        lines.append(Line("last turn", _last(status.last)))
    return [*lines, *(Line("to do", step) for step in next_steps(status, now))]


def next_steps(status: TurnStatus, now: datetime) -> list[str]:
    """Return what a person should do about open alarms, or else about the turn that ended last."""
    if status.open_alarms and status.decision is not None and (step := status.decision.data.next_step):
        return [step]
    last = status.last
    return [last.next_step] if last and last.next_step and not status.in_flight(now) else []


def as_json(status: TurnStatus, now: datetime) -> dict[str, Any]:
    """Return the report as data for JSON."""
    decided = status.decision.data if status.decision is not None else None
    answers = _answers(decided)
    return {
        "alarms": [
            {
                "alarm_id": name,
                "detector": alarm.data.signal or alarm.data.detector,
                "since": alarm.time,
                **{name: getattr(alarm.data, name, None) for name in FIGURES},
                "suggested_action": alarm.data.suggested_action,
                "answer": answers[name].model_dump() if name in answers else None,
            }
            for name, alarm in status.open_alarms.items()
        ],
        "decision": decided.model_dump(exclude={"alarms"}) if decided is not None else None,
        "in_flight": [asdict(turn) for turn in status.in_flight(now)],
        "last": status.last.model_dump() if status.last is not None else None,
        "next_steps": next_steps(status, now),
    }


def _answers(decided: TurnDecided | None) -> dict[str, AlarmAnswer]:
    return {one.alarm_id: one for one in decided.alarms} if decided is not None else {}


def _alarm(
    name: str, alarm: Envelope[DriftDetected | AlarmOpened], answer: AlarmAnswer | None, now: datetime
) -> str:
    data = alarm.data
    if isinstance(data, AlarmOpened):
        effect = "its figures are no longer on the log"
    elif data.effect is None:
        effect = f"{data.statistic_name} {data.statistic:.3g}"
    else:
        effect = f"{data.effect_unit or 'effect'} {data.effect:.2g}"
    parts = [
        f"{name}: {data.signal or data.detector}, raised {_moment(alarm.time, now)}: {effect}",
        f"suggests: {_suggestion(data)}" if data.suggested_action else "",
        _answer(answer),
    ]
    return "; ".join(part for part in parts if part)


def _suggestion(alarm: DriftDetected | AlarmOpened) -> str:
    about = ", ".join(alarm.cluster.keywords) if alarm.cluster else ""
    if about and alarm.suggested_action == "update_documents":
        return f"publish documents about {about}"
    return _words(alarm.suggested_action or "")


def _answer(answer: AlarmAnswer | None) -> str:
    if answer is None:
        return UNDECIDED
    if answer.labels_needed is None:
        return f"leads to: {_words(answer.follows)}"
    return (
        f"leads to: {_words(answer.follows)}, has {answer.labels or 0} of the {answer.labels_needed} it needs"
    )


def _decision(decided: TurnDecided) -> str:
    parts = [f"{decided.step}: {decided.evidence}" if decided.evidence else decided.step]
    if decided.until is not None:
        parts.append(f"the clock ends that at {_minute(decided.until)}")
    for name, limit in decided.limits.items():
        spent = decided.spent.get(name, 0.0)
        left = max(0.0, limit - spent)
        parts.append(f"{left:.2f} of {limit:g} {_words(name)} are left this month")
    return "; ".join(parts)


def _in_flight(turn: TurnInFlight, now: datetime) -> str:
    about = f" for {', '.join(turn.alarm_ids)}" if turn.alarm_ids else ""
    version = turn.dataset_id or "no version yet"
    return (
        f"{turn.turn_id} ({version}), asked for by {turn.reason}{about}: {turn.stage} since "
        f"{_moment(turn.since, now)}; it began {_moment(turn.began_at, now)}"
    )


def _last(turn: TurnCompleted) -> str:
    parts = [f"{turn.turn_id} {turn.outcome}", *turn.reasons]
    both = [name for name in turn.before if name in turn.after]
    if both:
        parts.append(
            "before and after: "
            + ", ".join(f"{_words(name)} {turn.before[name]:.3g} → {turn.after[name]:.3g}" for name in both)
        )
    if turn.cost:
        parts.append("cost " + ", ".join(f"{value:.3g} {_words(name)}" for name, value in turn.cost.items()))
    parts.append(f"took {_span(turn.ended_at - turn.began_at)}, ended {_minute(turn.ended_at)}")
    return "; ".join(parts)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _moment(at: datetime, now: datetime) -> str:
    return f"{_minute(at)} ({_span(now - at)} ago)"


def _span(time: timedelta) -> str:
    """Return a duration in its largest unit, rounded down, such as ``3 h``."""
    seconds = max(0, int(time.total_seconds()))
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size or (unit != "days" and seconds >= size):
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
