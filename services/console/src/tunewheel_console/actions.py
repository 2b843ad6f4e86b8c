"""People's actions, on the page or over HTTP. Every action is one event, which names the person."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, Literal

import structlog
from pydantic import ValidationError
from tunewheel_contracts.event import E, Envelope
from tunewheel_contracts.events.evaluation import ReviewRequested, ReviewSubmitted
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.principal import Principal
from tunewheel_contracts.reading import at_door
from tunewheel_contracts.topics import PROJECT_DECLARED, SERVING_DESIRED
from tunewheel_runtime.refusals import Refused
from tunewheel_runtime.service import Service

log = structlog.get_logger(__name__)


class ModelAction(StrEnum):
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    PIN = "pin"
    UNPIN = "unpin"
    RETIRE = "retire"
    REJECT = "reject"
    STOP = "stop"
    """Send all traffic to the model at once. It takes effect whatever else happened meanwhile."""


ALONE = ("champion", "base")
"""The models that may answer all traffic alone: whichever model has the alias when the registry reads the
command."""


class Actions:
    """Publishes actions, and returns their events. ``request`` names an action: the same action of the same
    person under the same name is the same event.

    Every method raises:
        Refused: a value is invalid; every invalid field is named.
        TransientError: the broker is away; nothing is kept.
        InvalidEvent: the event is longer than its topic accepts.
    """

    def __init__(
        self,
        service: Service,
        *,
        applied: Callable[[Envelope[Any]], object] = lambda _: None,
        sign: Callable[[Envelope[Any]], Envelope[Any]] = lambda event: event,
    ) -> None:
        """``applied`` gets every event that is on the log, signed by ``sign`` as it is there."""
        self._service = service
        self._applied = applied
        self._sign = sign

    async def review(
        self,
        request: Envelope[ReviewRequested],
        *,
        reviewer: str,
        principal: Principal | None,
        verdict: Literal["approved", "rejected"],
        comment: str,
    ) -> Envelope[ReviewSubmitted]:
        """Publish a person's verdict and return its event, whose cause is ``request``. A rejection is final
        for that version."""
        asked = request.data
        data = _valid(
            ReviewSubmitted,
            project=asked.project,
            run_id=asked.run_id,
            reviewer=reviewer,
            verdict=verdict,
            comment=comment,
            review_id=asked.review_id,
            principal=principal,
        )
        return await self.answer(request, data)

    async def answer(self, request: Envelope[Any], answer: E) -> Envelope[E]:
        return await self._send(answer, cause=request)

    async def give(self, command: type[E], **fields: Any) -> Envelope[E]:
        """Publish a person's command. A field ``request`` that is None is a new one."""
        return (await self.give_each(command, ({},), **fields))[0]

    async def give_each(
        self, command: type[E], each: Iterable[Mapping[str, Any]], **fields: Any
    ) -> list[Envelope[E]]:
        """Publish a command for each of these fields, with all of ``fields``. None is published unless all
        are valid."""
        if "request" in fields:
            fields["request"] = fields["request"] or f"console-{uuid.uuid4().hex}"
        return [await self._send(data) for data in [_valid(command, **own, **fields) for own in each]]

    async def declare(self, spec: ProjectSpec, *, principal: Principal | None) -> Envelope[ProjectDeclared]:
        """Put a spec in force. Declaring the same spec again gives the same event."""
        return await self._send(ProjectDeclared(project=spec.project, spec=spec, principal=principal))

    async def remove(self, project: str, *, principal: Principal | None) -> None:
        """Take back the declaration of ``project``, then its serving state. What was published, built and
        trained stays: declaring the project again brings all of it back."""
        await self._service.take_back(PROJECT_DECLARED, project)
        await self._service.take_back(SERVING_DESIRED, project)
        # a tombstone names nobody, and the topic keeps it for a day only
        log.info("project_removed", project=project, principal=principal.name if principal else None)

    async def _send(self, data: E, *, cause: Envelope[Any] | None = None) -> Envelope[E]:
        event = self._sign(self._service.new(data, cause=cause))
        await self._service.publish(event)
        self._applied(event)
        return event


def _valid(event_class: type[E], **fields: Any) -> E:
    try:
        return event_class.model_validate(fields, context=at_door())
    except ValidationError as error:
        raise Refused.of(error) from error
