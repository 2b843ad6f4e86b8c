"""Keeps the state of every project. It is rebuilt from the log, and changes as events are decided and
published."""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import Awaitable, Callable, Sequence
from functools import reduce
from typing import Any, Protocol

import structlog
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed, EvalRequested
from tunewheel_contracts.events.lifecycle import ModelCommanded, ModelRegistered
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.roles import Role

from tunewheel_registry.commands import is_settled, refused
from tunewheel_registry.decision import decide, has_begun
from tunewheel_registry.desired import desired_state
from tunewheel_registry.lifecycle import Decision, apply
from tunewheel_registry.state import State

log = structlog.get_logger(__name__)


class Log(Protocol):
    """The part of a service that the ledger writes through."""

    def new(self, data: Any, *, cause: Envelope[Any] | None = None) -> Envelope[Any]: ...

    async def publish_many(self, envelopes: Sequence[Envelope[Any]]) -> None: ...


class Require(Protocol):
    """``Access.require``."""

    async def __call__(
        self, principal: Principal | None, role: Role, project: str, *, field: str
    ) -> None: ...


FindSpec = Callable[[str], Awaitable[ProjectSpec | None]]
"""Return the newest spec of a project; None where it was never declared."""
CatchUp = Callable[[], Awaitable[None]]
"""Return once every lifecycle event now on the log went through ``Ledger.replay``, and ``FindSpec`` returns
the newest specs."""
Rank = tuple[int, float, str]


class Ledger:
    """Holds one ``State`` per project.

    Events are applied to the state only after the broker acknowledged them. So state and log agree even if
    the process crashes or the broker fails. An earlier release may have left half a decision on the log.
    """

    def __init__(self, log: Log, find_spec: FindSpec, catch_up: CatchUp, require: Require) -> None:
        self._log = log
        self._require = require
        self._find_spec = find_spec
        self._catch_up = catch_up
        self._states: dict[str, State] = {}
        self._events: dict[str, dict[Rank, Envelope[Any]]] = {}
        """By project, every event that was ever seen."""
        self._decided: dict[str, dict[int, Envelope[Any]]] = {}
        """By project and generation, the event that counts."""
        self._refused: dict[str, dict[str | None, float]] = {}
        """By project, the causes of decisions that do not count, with the time of the one that does."""
        self._parked: list[Envelope[Any]] = []
        self._deciding = asyncio.Lock()

    def state(self, project: str) -> State:
        return self._states.get(project, State(project))

    def replay(self, envelope: Envelope[Any]) -> None:
        """Apply one event from the log that a registry published.

        Events of different topics arrive in no fixed order. An event that arrives too early, or does not fit
        yet, is parked until the earlier events have arrived. Of events with one generation the latest that
        fits counts. The resulting state does not depend on the order of arrival.
        """
        project, generation = envelope.project, _generation(envelope)
        if not self._note(envelope):
            return
        insort(self._parked, envelope, key=_rank)
        if generation and generation <= self.state(project).generation:
            # Two processes decided, so whatever was concluded from the first is concluded anew.
            log.warning("two_decisions_of_one_generation", project=project, generation=generation)
            for about in (self._states, self._decided, self._refused):
                about.pop(project, None)
            others = [event for event in self._parked if event.project != project]
            self._parked = sorted([*others, *self._events[project].values()], key=_rank)
        progress = True
        while progress:
            waiting, self._parked = self._parked, []
            for event in waiting:
                if not self._is_its_turn(event) or not self._fits(event):
                    self._parked.append(event)
            progress = len(self._parked) < len(waiting) and bool(self._parked)

    def _note(self, envelope: Envelope[Any]) -> bool:
        """Keep an event; return whether it is new."""
        events = self._events.setdefault(envelope.project, {})
        return events.setdefault(_rank(envelope), envelope) is envelope

    async def handle(self, trigger: Envelope[Any]) -> None:
        """Publish the events that follow from ``trigger``.

        Lifecycle events and the desired state are published at once, in one transaction. ``eval.requested``
        comes after that, because eval reads the desired state. Raises InvalidEvent: the project is not
        declared, the verdict's reviewer has no right to review, or the trigger contradicts the state. A
        command is refused by an event instead, because a person waits for the answer.
        """
        async with self._deciding:
            # Another process may have published for these partitions until just now, or a spec just arrived.
            await self._catch_up()
            self._apply_parked(trigger.project)
            if isinstance(trigger.data, ModelCommanded) and not await self._is_taken(trigger):
                return
            spec = await self._spec(trigger.project)
            await self._check_reviewer(trigger)
            state, review = self.state(trigger.project), spec.review.required
            decided = decide(state, trigger, spec.rollout, review_required=review)
            asked = [event for event in decided if isinstance(event, EvalRequested)]
            made = [event for event in decided if not isinstance(event, EvalRequested)]
            await self._publish(made, trigger, spec)
            await self._publish(asked, trigger)

    async def _publish(
        self, decided: Sequence[Decision], cause: Envelope[Any], spec: ProjectSpec | None = None
    ) -> None:
        """Publish events, with ``spec`` also the desired state after them."""
        envelopes = [self._log.new(event, cause=cause) for event in decided]
        state = reduce(_after, envelopes, self.state(cause.project))
        desired = desired_state(state, spec) if spec is not None else None
        last = [self._log.new(desired, cause=cause)] if desired is not None else []
        await self._log.publish_many([*envelopes, *last])
        for event in envelopes:
            self._note(event)
            self._apply(event)

    async def _is_taken(self, trigger: Envelope[ModelCommanded]) -> bool:
        """Return whether a command is accepted; publish its refusal if not. A command that was already
        accepted or refused stays so, even if its author lost the role since."""
        command, state = trigger.data, self.state(trigger.project)
        if is_settled(state, command):
            return command.event_id() not in state.refused
        try:
            await self._spec(command.project)
            await self._require(command.principal, Role.OPERATOR, command.project, field="principal")
        except InvalidEvent as error:
            await self._publish([refused(command, error.field, error.reason)], trigger)
            return False
        return True

    async def _check_reviewer(self, trigger: Envelope[Any]) -> None:
        verdict = trigger.data
        if not isinstance(verdict, EvalPassed | EvalFailed):
            return
        by_a_person = verdict.reviewed_by is not None or verdict.principal is not None
        # A decision that was begun is finished, even if the reviewer lost the role since.
        if by_a_person and not has_begun(self.state(trigger.project), trigger):
            await self._require(verdict.principal, Role.REVIEWER, trigger.project, field="principal")

    async def redeclare(self, declared: Envelope[Any]) -> None:
        """Publish the desired state again, since the system prompt or the canary's share may have changed.

        The newest spec is used; ``declared`` may be an older one that was redelivered. Raises InvalidEvent:
        the project is not declared.
        """
        async with self._deciding:
            await self._catch_up()
            await self._publish([], declared, await self._spec(declared.project))

    async def _spec(self, project: str) -> ProjectSpec:
        spec = await self._find_spec(project)
        if spec is None:
            raise InvalidEvent(
                field="project", reason=f"{project!r} is not declared; publish its spec as project.declared"
            )
        return spec

    def _apply(self, envelope: Envelope[Any]) -> None:
        self._states[envelope.project] = _after(self.state(envelope.project), envelope)
        if generation := _generation(envelope):
            self._decided.setdefault(envelope.project, {})[generation] = envelope

    def _is_its_turn(self, envelope: Envelope[Any]) -> bool:
        """Return whether all earlier lifecycle events of the project were applied. Events without a
        generation are never held back."""
        return _generation(envelope) <= self.state(envelope.project).generation + 1

    def _fits(self, envelope: Envelope[Any]) -> bool:
        """Apply an event; return False if it does not fit yet but may fit after other events. Dropped are a
        contradictory registration, which is logged, and an event of a decision that does not count."""
        if self._is_refused(envelope):
            return True
        try:
            self._apply(envelope)
        except InvalidEvent:
            if not isinstance(envelope.data, ModelRegistered):
                return False
            log.exception("lifecycle_event_contradicts", event_id=envelope.id, project=envelope.project)
        return True

    def _is_refused(self, envelope: Envelope[Any]) -> bool:
        """Return whether another event counts for its generation, or for an earlier one of its decision."""
        refused, generation = self._refused.setdefault(envelope.project, {}), _generation(envelope)
        cause = envelope.causation_id
        if 0 < generation <= self.state(envelope.project).generation:
            counts = self._decided.get(envelope.project, {}).get(generation, envelope)
            if counts.id != envelope.id:
                refused[cause] = max(counts.time.timestamp(), refused.get(cause, 0))
            return True
        return generation > 0 and envelope.time.timestamp() <= refused.get(cause, 0)

    def _apply_parked(self, project: str) -> None:
        """Apply the parked events of ``project``, in the order of generations. Called once the log is read to
        its end, so no missing event will arrive. An event that still does not fit was written by somebody
        else; it is logged as an error and dropped."""
        mine = [event for event in self._parked if event.project == project]
        self._parked = [event for event in self._parked if event.project != project]
        for envelope in mine:
            if not self._fits(envelope):
                log.error(
                    "lifecycle_event_fits_nothing", event_id=envelope.id, data=envelope.data.model_dump()
                )


def _after(state: State, envelope: Envelope[Any]) -> State:
    return apply(state, envelope.data, cause=envelope.causation_id, at=envelope.time)


def _generation(envelope: Envelope[Any]) -> int:
    """Return the generation of a lifecycle event; 0: it has none."""
    return getattr(envelope.data, "generation", None) or 0


def _rank(envelope: Envelope[Any]) -> Rank:
    """Return the sort key of parked events. Of two events with one generation the later one comes first: the
    process that took over decided later than the one that had stalled."""
    generation, time = _generation(envelope), envelope.time.timestamp()
    return generation, -time if generation else time, envelope.id
