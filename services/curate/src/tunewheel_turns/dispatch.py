"""Decides with the state from the log, the number of labels, and the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import structlog
from tunewheel_contracts.events.data import BuildReason
from tunewheel_contracts.events.turns import AlarmAnswer, LabelsRequested, TurnDecided
from tunewheel_contracts.formats.spec import ProjectSpec

from tunewheel_turns.deciding import (
    MOST_ALARMS,
    Decision,
    Step,
    decide,
    hold,
    reminder,
    waits_for,
)
from tunewheel_turns.facts import TurnFacts
from tunewheel_turns.readiness import follows, labels_needed, to_mend
from tunewheel_turns.state import Alarm, Labels, State

BUILD = "`tunewheel dataset build --project {project}`"
NEXT_STEPS = {
    Step.INVESTIGATE: f"Look at what the alarm is about, then update documents or the spec; {BUILD} asks for "
    "a version.",
    Step.LABELS: "Answer the questions that wait: `tunewheel label list --project {project}`, or the "
    "console's page Labels.",
    Step.BROKEN: f"Mend the service that has the turn (`tunewheel doctor`); then {BUILD} asks for a version.",
    Step.TRIED: f"Change the spec or publish other records; {BUILD} tries the same again.",
    Step.BUDGET: f"Raise `drift.turns.budget` in the spec, or run {BUILD}.",
    Step.APPROVAL: f"Approve of the turn: run {BUILD}, or press Build in the console.",
}
"""By step: what a person should do. The other steps need nobody."""
PUBLISH = "Publish documents about {about}: `tunewheel publish FILES --project {project}`."

REVIEW = "Review the answers that wait: `tunewheel review list --project {project}`, or the page Reviews."
SHOWN = 8
"""How many turns of an alarm are named."""

CountLabels = Callable[[ProjectSpec, Mapping[str, LabelsRequested]], Mapping[str, Labels]]
"""Returns for a project, by alarm, which of the wanted labels there are. It may read the store."""

log = structlog.get_logger(__name__)


def utc_now() -> datetime:
    return datetime.now(UTC)


class Dispatch:
    """Decides what is due, and keeps the latest decision about each project."""

    def __init__(
        self, facts: TurnFacts, count_labels: CountLabels, *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._facts = facts
        self._count_labels = count_labels
        self._clock = clock
        self._decided: dict[str, TurnDecided] = {}
        """By project: the latest decision."""
        self._held: dict[str, str | None] = {}
        """By project: why builds wait, as last logged."""

    async def decide(self, spec: ProjectSpec) -> Decision:
        """Return the decision about the open alarms of a project at this moment.

        Raises:
            TransientError: the store is away.
        """
        state, now = await self._state(spec), self._clock()
        decision = decide(state, now)
        self._decided[spec.project] = tell(state, decision, spec.project, now)
        return decision

    def decided(self, project: str) -> TurnDecided | None:
        """Return the last decision; None: there is none yet."""
        return self._decided.get(project)

    async def hold(self, spec: ProjectSpec, reason: BuildReason) -> str | None:
        """Return why a version that is due because of new records must wait; None: it need not.

        Raises:
            TransientError: the store is away.
        """
        held = hold(await self._state(spec), reason, self._clock())
        if held is not None and held != self._held.get(spec.project):
            log.info("build_waits", project=spec.project, reason=held)
        self._held[spec.project] = held
        return held

    def mended_by_command(self, spec: ProjectSpec) -> tuple[str, ...]:
        """Return the open alarms that a version requested by a person should resolve: the oldest ones, as
        many as a request can name."""
        alarms = to_mend(self._facts.state(spec))
        return tuple(alarm.name for alarm in alarms[:MOST_ALARMS])

    async def _state(self, spec: ProjectSpec) -> State:
        state, policy = self._facts.state(spec), spec.drift.turns
        wanted = {
            alarm.name: asked
            for alarm in state.alarms
            if follows(policy, alarm) == "collect_labels"
            and (asked := self._facts.wanted(spec.project, alarm.name)) is not None
        }
        if not wanted:
            return state
        answers = await asyncio.to_thread(self._count_labels, spec, wanted)
        trusted = {name: one.trusted for name, one in answers.items()}
        return replace(state, labelled=trusted, answers=answers)


def tell(state: State, decision: Decision, project: str, now: datetime) -> TurnDecided:
    """Return the event for a decision about ``project`` at ``now``."""
    budget = state.drift.turns.budget.model_dump(exclude_none=True)
    spent = state.spent(now)
    waits = {alarm.name: waits_for(state, decision, alarm, now) for alarm in state.alarms}
    weeks, remind_at = reminder(state, waits, now)
    return TurnDecided(
        project=project,
        step=decision.step.value,
        evidence=decision.evidence,
        next_step=_next_step(state, decision, project),
        alarm_ids=decision.alarms[:MOST_ALARMS],
        alarms=tuple(_answer(state, alarm, waits[alarm.name]) for alarm in state.alarms[:MOST_ALARMS]),
        until=decision.until,
        reminder=weeks,
        remind_at=remind_at,
        spent={name: getattr(spent, name) for name in budget},
        limits=budget,
    )


def _next_step(state: State, decision: Decision, project: str) -> str:
    """Return what a person should do. Missing documents are named whatever the step is: no training can
    replace them."""
    lacking = [alarm for alarm in state.alarms if alarm.action == "update_documents" and alarm.keywords]
    about = ", ".join(dict.fromkeys(word for alarm in lacking for word in alarm.keywords))
    told = [PUBLISH.format(about=about, project=project)] if lacking else []
    if decision.step is Step.IN_FLIGHT and decision.until is None:
        told.append(REVIEW.format(project=project))
    elif len(lacking) < len(state.alarms):
        told.append(NEXT_STEPS.get(decision.step, "").format(project=project))
    return " ".join(filter(None, told))


def _answer(state: State, alarm: Alarm, waits: str | None) -> AlarmAnswer:
    what = follows(state.drift.turns, alarm)
    collects = what == "collect_labels"
    return AlarmAnswer(
        alarm_id=alarm.name,
        detector=alarm.detector,
        follows=what,
        labels=state.labelled.get(alarm.name, 0) if collects else None,
        lacking=dict(state.answers[alarm.name].lacking) if alarm.name in state.answers else {},
        labels_needed=labels_needed(state, alarm) if collects else None,
        waits_for=waits,
        tried=tuple(turn.turn_id for turn in state.turns_for(alarm)[-SHOWN:]),
    )
