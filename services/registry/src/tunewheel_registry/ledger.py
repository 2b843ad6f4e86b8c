"""The registry's memory: the state of every project, rebuilt from the log, and how it grows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import structlog
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope, Event
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed, EvalRequested
from tunewheel_contracts.events.lifecycle import ModelCommanded, ModelRegistered
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.roles import Role

from tunewheel_registry.commands import is_settled, refused
from tunewheel_registry.decision import decide, has_begun
from tunewheel_registry.desired import desired_state
from tunewheel_registry.lifecycle import Decision, State, apply

log = structlog.get_logger(__name__)


class Log(Protocol):
    """The part of a service that the ledger writes through."""

    def new(self, data: Any, *, cause: Envelope[Any] | None = None) -> Envelope[Any]: ...

    async def publish(self, envelope: Envelope[Any]) -> None: ...


class Require(Protocol):
    """``Access.require``."""

    async def __call__(
        self, principal: Principal | None, role: Role, project: str, *, field: str
    ) -> None: ...


FindSpec = Callable[[str], Awaitable[ProjectSpec | None]]
"""Return the newest spec of a project; None where it was never declared."""
CatchUp = Callable[[], Awaitable[None]]
"""Return once every lifecycle event that is on the log now went through ``Ledger.replay``, and every spec is
the one that ``FindSpec`` finds."""


class Ledger:
    """Holds one ``State`` per project. An event is applied only once it is on the log: a crash, or a
    broker that is away, between two events of a decision leaves memory and log in step."""

    def __init__(self, log: Log, find_spec: FindSpec, catch_up: CatchUp, require: Require) -> None:
        self._log = log
        self._require = require
        self._find_spec = find_spec
        self._catch_up = catch_up
        self._states: dict[str, State] = {}
        self._parked: list[Envelope[Any]] = []
        self._deciding = asyncio.Lock()

    @property
    def projects(self) -> tuple[str, ...]:
        return tuple(name for name, state in self._states.items() if state.models)

    def state(self, project: str) -> State:
        return self._states.get(project, State(project))

    def replay(self, envelope: Envelope[Any]) -> None:
        """Take one event that a registry published from the log.

        The topics have no order between them, so an event whose turn has not come, or that does not fit yet,
        is parked until those before it have come. The resulting state does not depend on the interleaving.
        """
        self._parked.append(envelope)
        progress = True
        while progress:
            waiting, self._parked = self._parked, []
            for event in waiting:
                if not self._is_its_turn(event) or not self._fits(event):
                    self._parked.append(event)
            progress = len(self._parked) < len(waiting) and bool(self._parked)

    async def handle(self, trigger: Envelope[Any]) -> None:
        """Publish what ``trigger`` still asks for, one event at a time, then the desired state, and then what
        others are asked for, who may look at that state.

        Raises:
            InvalidEvent: the project is not declared, the trigger rests on the review of somebody who may not
                review, or it contradicts what is known. A command is refused on the log instead: a person
                waits for the answer.
        """
        async with self._deciding:
            # Another process may have held our partitions until a moment ago, or a spec just arrived.
            await self._catch_up()
            self._apply_parked(trigger.project)
            if isinstance(trigger.data, ModelCommanded) and not await self._is_taken(trigger):
                return
            spec = await self._spec(trigger.project)
            await self._check_reviewer(trigger)
            decided = decide(self.state(trigger.project), trigger, spec.rollout)
            asked = [event for event in decided if isinstance(event, EvalRequested)]
            for event in decided:
                if not isinstance(event, EvalRequested):
                    await self._publish(event, trigger)
            await self._publish_desired(trigger, spec)
            for event in asked:
                await self._publish(event, trigger)

    async def _publish(self, event: Decision, trigger: Envelope[Any]) -> None:
        envelope = self._log.new(event, cause=trigger)
        await self._log.publish(envelope)
        self._apply(envelope)

    async def _is_taken(self, trigger: Envelope[ModelCommanded]) -> bool:
        """Tell whether a command counts; one that does not is refused. What is settled stays so, whoever lost
        a role in between."""
        command, state = trigger.data, self.state(trigger.project)
        if is_settled(state, command):
            return command.event_id() not in state.refused
        try:
            await self._spec(command.project)
            await self._require(command.principal, Role.OPERATOR, command.project, field="principal")
        except InvalidEvent as error:
            await self._publish(refused(command, error.field, error.reason), trigger)
            return False
        return True

    async def _check_reviewer(self, trigger: Envelope[Any]) -> None:
        verdict = trigger.data
        if not isinstance(verdict, EvalPassed | EvalFailed):
            return
        by_a_person = verdict.reviewed_by is not None or verdict.principal is not None
        # The rest of a decision follows its beginning, whoever lost a role in between.
        if by_a_person and not has_begun(self.state(trigger.project), trigger):
            await self._require(verdict.principal, Role.REVIEWER, trigger.project, field="principal")

    async def redeclare(self, declared: Envelope[Any]) -> None:
        """Publish the desired state anew: the system prompt or the canary's share may have changed.

        The newest spec counts: ``declared`` may be an older one that is delivered again.

        Raises:
            InvalidEvent: the project is not declared.
        """
        async with self._deciding:
            await self._catch_up()
            await self._publish_desired(declared, await self._spec(declared.project))

    async def _publish_desired(self, cause: Envelope[Event], spec: ProjectSpec) -> None:
        desired = desired_state(self.state(cause.project), spec)
        if desired is not None:
            await self._log.publish(self._log.new(desired, cause=cause))

    async def _spec(self, project: str) -> ProjectSpec:
        spec = await self._find_spec(project)
        if spec is None:
            raise InvalidEvent(
                field="project", reason=f"{project!r} is not declared; publish its spec as project.declared"
            )
        return spec

    def _apply(self, envelope: Envelope[Any]) -> None:
        event: Decision = envelope.data
        state = self.state(event.project)
        self._states[event.project] = apply(state, event, cause=envelope.causation_id, at=envelope.time)

    def _is_its_turn(self, envelope: Envelope[Any]) -> bool:
        """Tell whether all lifecycle events before this one were applied, as far as it knows its place."""
        generation = getattr(envelope.data, "generation", None)
        return generation is None or generation <= self.state(envelope.project).generation + 1

    def _fits(self, envelope: Envelope[Any]) -> bool:
        """Apply an event, or drop it where no other event can make it fit; False where one may."""
        try:
            self._apply(envelope)
        except InvalidEvent:
            if not isinstance(envelope.data, ModelRegistered):
                return False
            log.exception("lifecycle_event_contradicts", event_id=envelope.id, project=envelope.project)
        return True

    def _apply_parked(self, project: str) -> None:
        """The log is read to its end: take what waits for an event that is not there, in its order; say
        loudly, once, what fits nothing: another writer made it."""
        mine = [event for event in self._parked if event.project == project]
        self._parked = [event for event in self._parked if event.project != project]
        for envelope in sorted(mine, key=lambda event: getattr(event.data, "generation", None) or 0):
            if not self._fits(envelope):
                log.error(
                    "lifecycle_event_fits_nothing", event_id=envelope.id, data=envelope.data.model_dump()
                )
