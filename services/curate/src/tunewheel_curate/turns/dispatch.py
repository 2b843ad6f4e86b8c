"""Brings log, record table and clock together to the decision that holds now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import structlog
from tunewheel_contracts.events.data import BuildReason
from tunewheel_contracts.formats.spec import ProjectSpec

from tunewheel_curate.turns.deciding import MOST_ALARMS, Decision, decide, follows, hold, to_mend
from tunewheel_curate.turns.facts import TurnFacts
from tunewheel_curate.turns.labelling import LabelCount
from tunewheel_curate.turns.state import State

log = structlog.get_logger(__name__)


def utc_now() -> datetime:
    return datetime.now(UTC)


class Dispatch:
    """Says what is due, and tells each decision in the log once."""

    def __init__(
        self, facts: TurnFacts, labels: LabelCount, *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._facts = facts
        self._labels = labels
        self._clock = clock
        self._told: dict[str, object] = {}
        """By project: the latest decision, and what held builds up."""

    async def decide(self, spec: ProjectSpec) -> Decision:
        """Return what follows now from the open alarms of a project.

        Raises:
            TransientError: the store is away.
        """
        decision = decide(await self._state(spec), self._clock())
        if self._is_news(spec.project, (decision.step, decision.alarms, decision.request)):
            until = decision.until.isoformat() if decision.until else None
            log.info(
                "turn_decided", project=spec.project, decision=decision.step.value,
                evidence=decision.evidence, alarms=decision.alarms, until=until,
            )  # fmt: skip
        return decision

    async def hold(self, spec: ProjectSpec, reason: BuildReason) -> str | None:
        """Return why a version that records ask for has to wait; None where it does not.

        Raises:
            TransientError: the store is away.
        """
        held = hold(await self._state(spec), reason, self._clock())
        if self._is_news(f"{spec.project} records", held) and held is not None:
            log.info("build_waits", project=spec.project, reason=held)
        return held

    def mended_by_command(self, spec: ProjectSpec) -> tuple[str, ...]:
        """Return the open alarms that a version which a person asks for is to mend: as many, from the oldest
        on, as a request can name."""
        alarms = to_mend(self._facts.state(spec), self._clock())
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
        return replace(state, labelled=await asyncio.to_thread(self._labels.count, spec.project, wanted))

    def _is_news(self, name: str, said: object) -> bool:
        news, self._told[name] = self._told.get(name) != said, said
        return news
