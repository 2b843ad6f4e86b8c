"""Reports the alarms and turns of a project in words, for the console and its control API."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from tunewheel_contracts.events.lifecycle import ModelPromoted, Stage
from tunewheel_contracts.events.production import AlarmOpened, DriftDetected
from tunewheel_contracts.events.turns import AlarmAnswer, TurnCompleted, TurnDecided

from tunewheel_wheel.facts import Alarm
from tunewheel_wheel.turn import Turn, TurnStage
from tunewheel_wheel.wheel import Wheel

About = Literal["alarm", "decision", "turn in flight", "last turn", "margin", "to do"]
UNDECIDED = "curate has decided nothing about it yet"
STAGES = {
    TurnStage.BUILDING: "its dataset version is being built",
    TurnStage.WAITING: "waits for training",
    TurnStage.TRAINING: "in training",
    TurnStage.EVALUATING: "in evaluation",
    TurnStage.REVIEW: "waits for people to review it",
    TurnStage.UNDECIDED: "undecided by its evaluation, and waits for a trial that must show more",
    TurnStage.PASSED: "passed its evaluation and waits for its rollout",
    TurnStage.SHADOW: "in shadow",
    TurnStage.CANARY: "in canary",
    TurnStage.PRODUCTION: "in production, its effect is being measured",
}


class Line(NamedTuple):
    """One line of the report for people."""

    about: About
    text: str


def report(wheel: Wheel, now: datetime) -> list[Line]:
    """Return the report, most urgent first; empty if there was no alarm and no turn."""
    lines: list[Line] = []
    decided = wheel.facts.decision.data if wheel.facts.decision is not None else None
    alarms = wheel.open_alarms
    answers = _answers(decided)
    lines += [Line("alarm", _alarm(name, one, answers.get(name), now)) for name, one in alarms.items()]
    if alarms and decided is not None:
        lines.append(Line("decision", f"curate: {_decision(decided)}"))
    lines += [Line("turn in flight", _in_flight(turn, now)) for turn in wheel.in_flight(now)]
    if wheel.last is not None:
        lines.append(Line("last turn", _last(wheel.last)))
    lines += [Line("margin", text) for text in _margins(wheel)]
    return [*lines, *(Line("to do", step) for step in next_steps(wheel, now))]


def next_steps(wheel: Wheel, now: datetime) -> list[str]:
    """Return what a person should do about open alarms, or else about the turn that ended last."""
    if (
        wheel.open_alarms
        and wheel.facts.decision is not None
        and (step := wheel.facts.decision.data.next_step)
    ):
        return [step]
    last = wheel.last
    return [last.next_step] if last and last.next_step and not wheel.in_flight(now) else []


def _answers(decided: TurnDecided | None) -> dict[str, AlarmAnswer]:
    return {one.alarm_id: one for one in decided.alarms} if decided is not None else {}


def _alarm(name: str, alarm: Alarm, answer: AlarmAnswer | None, now: datetime) -> str:
    data = alarm.data
    if isinstance(data, AlarmOpened):
        effect = "its figures are no longer on the log"
    elif data.effect is None:
        effect = f"{data.statistic_name} {data.statistic:.3g}"
    else:
        effect = f"{data.effect_unit or 'effect'} {data.effect:.2g}"
    parts = [
        f"{name}: {data.signal or data.detector}, raised {_moment(alarm.time, now)}: {effect}",
        f"reopens {data.reopens}" if data.reopens else "",
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
    words = f"leads to: {_words(answer.follows)}"
    if answer.labels_needed is not None:
        words += f", has {answer.labels or 0} of the {answer.labels_needed} it needs"
    return words + (f", waits for: {answer.waits_for}" if answer.waits_for else "")


def _decision(decided: TurnDecided) -> str:
    parts = [f"{decided.step}: {decided.evidence}" if decided.evidence else decided.step]
    if decided.until is not None:
        parts.append(f"the clock ends that at {_minute(decided.until)}")
    for name, limit in decided.limits.items():
        spent = decided.spent.get(name, 0.0)
        left = max(0.0, limit - spent)
        parts.append(f"{left:.2f} of {limit:g} {_words(name)} are left this month")
    return "; ".join(parts)


def stage_of(turn: Turn) -> str:
    """Return the stage of a turn in words, with the latest step of its training."""
    if turn.stage is TurnStage.PRODUCTION and turn.end is not None:
        return "in production, its effect was measured" if turn.completed else "was in production"
    to_show = getattr(turn.course.event.data, "to_show", None)
    if turn.stage is TurnStage.SHADOW and to_show is not None:
        return f"in shadow, where its answers must be shown to differ by more than {to_show:+.3g}"
    if (progress := turn.course.progress) is None:
        return STAGES[turn.stage]
    step = progress.data
    return f"{STAGES[turn.stage]}, step {step.step} of {step.total_steps}, {step.eta_seconds:.0f} s left"


def _in_flight(turn: Turn, now: datetime) -> str:
    asked = turn.request.data
    about = f" for {', '.join(asked.alarm_ids)}" if asked.alarm_ids else ""
    version = turn.dataset_id or "no version yet"
    return (
        f"{turn.turn_id} ({version}), asked for by {asked.reason.value}{about}: {stage_of(turn)} since "
        f"{_moment(turn.since, now)}; it began {_moment(turn.request.time, now)}"
    )


def _margins(wheel: Wheel) -> Iterator[str]:
    """Yield what is left of each margin against the champion, where champions may have lost some of it."""
    facts = wheel.facts
    spent = facts.desired.data.spent if facts.desired is not None else 0.0
    for criterion in facts.declared.data.spec.criteria if facts.declared is not None and spent else ():
        margin = -(criterion.over_champion or 0.0)
        if margin > 0:
            left = f"{max(0.0, margin - spent):.3g} of {margin:.3g} {_words(criterion.metric)} is left"
            yield f"{left}: the champion may be worse than the best champion so far by {spent:.3g}"
    for model_id, step in facts.models.entries.items():
        match step.data:
            case ModelPromoted(to_stage=Stage.PRODUCTION, decided_by="command", replaces=str(old), gain=None):
                yield f"a person promoted {model_id}; its difference from {old} was not measured"
            case _:
                pass


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
