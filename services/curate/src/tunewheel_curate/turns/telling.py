"""Writes a decision as ``turn.decided``: step, open alarms, the month's budget, and what a person should
do."""

from __future__ import annotations

from datetime import datetime

from tunewheel_contracts.events.monitoring import AlarmAnswer, TurnDecided
from tunewheel_planner.spending import spent_in_month

from tunewheel_curate.turns.deciding import MOST_ALARMS, Decision, Step, follows, labels_needed
from tunewheel_curate.turns.state import Alarm, State

BUILD = "`tunewheel build --project {project}`"
NEXT_STEPS = {
    Step.INVESTIGATE: f"Look at what the alarm is about, then update documents or the spec; {BUILD} asks for "
    "a version.",
    Step.LABELS: "Answer the questions that wait: `tunewheel labels list --project {project}`, or the "
    "console's page Labels.",
    Step.TRIED: f"Change the spec or publish other records; {BUILD} tries the same again.",
    Step.BUDGET: f"Raise `drift.turns.budget` in the spec, or run {BUILD}.",
    Step.APPROVAL: f"Approve of the turn: run {BUILD}, or press Build in the console.",
}
"""By step: what a person should do. The other steps need nobody."""
PUBLISH = "Publish documents about {about}: `tunewheel publish FILES --project {project}`."


def tell(state: State, decision: Decision, project: str, now: datetime) -> TurnDecided:
    """Return the event for a decision about ``project`` at ``now``."""
    budget = state.drift.turns.budget.model_dump(exclude_none=True)
    spent = spent_in_month(state.runs, now)
    return TurnDecided(
        project=project,
        step=decision.step.value,
        evidence=decision.evidence,
        next_step=_next_step(state, decision, project),
        alarm_ids=decision.alarms[:MOST_ALARMS],
        alarms=tuple(_answer(state, alarm) for alarm in state.alarms[:MOST_ALARMS]),
        until=decision.until,
        spent={name: getattr(spent, name) for name in budget},
        limits=budget,
    )


def _next_step(state: State, decision: Decision, project: str) -> str:
    """Return what a person should do. Missing documents are named whatever the step is: no training can
    replace them."""
    lacking = [alarm for alarm in state.alarms if alarm.action == "update_documents" and alarm.keywords]
    about = ", ".join(dict.fromkeys(word for alarm in lacking for word in alarm.keywords))
    told = [PUBLISH.format(about=about, project=project)] if lacking else []
    if len(lacking) < len(state.alarms):
        told.append(NEXT_STEPS.get(decision.step, "").format(project=project))
    return " ".join(filter(None, told))


def _answer(state: State, alarm: Alarm) -> AlarmAnswer:
    what = follows(state.drift.turns, alarm)
    waits = what == "collect_labels"
    return AlarmAnswer(
        alarm_id=alarm.name,
        detector=alarm.detector,
        follows=what,
        labels=state.labelled.get(alarm.name, 0) if waits else None,
        labels_needed=labels_needed(state, alarm) if waits else None,
    )
