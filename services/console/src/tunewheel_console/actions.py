"""People's actions, on the page or over HTTP. Every action is one event, which names the person."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

import structlog
from pydantic import ValidationError
from tunewheel_contracts.api.commands import EvaluationOrder
from tunewheel_contracts.api.services import DeadLetter
from tunewheel_contracts.event import E, Envelope
from tunewheel_contracts.events.data import BuildReason, DatasetRequested, RecordJudged, RedeliveryRequested
from tunewheel_contracts.events.evaluation import EvalRequested, ReviewRequested, ReviewSubmitted
from tunewheel_contracts.events.lifecycle import ModelCommanded
from tunewheel_contracts.events.monitoring import CompletionsChosen
from tunewheel_contracts.events.training import TrainAction, TrainControl
from tunewheel_contracts.events.upstream import DocumentWithdrawn, ErasureRequested, ProjectDeclared
from tunewheel_contracts.formats.label_prompts import request_for
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.principal import Principal
from tunewheel_contracts.reading import at_door
from tunewheel_contracts.topics import PROJECT_DECLARED, SERVING_DESIRED
from tunewheel_runtime.deadletter import Position
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
    person under the same name is the same event. None: a new action.

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
        """Publish a person's answer and return its event, whose cause is ``request``."""
        return await self._send(answer, cause=request)

    async def build(
        self,
        project: str,
        *,
        principal: Principal | None,
        request: str | None = None,
        release: str | None = None,
    ) -> Envelope[DatasetRequested]:
        """Ask for a new dataset version, or for the publication of the version ``release``, which waits."""
        data = _valid(
            DatasetRequested, project=project, reason=BuildReason.COMMAND, request=_named(request),
            principal=principal, release=release,
        )  # fmt: skip
        return await self._send(data)

    async def control(
        self,
        project: str,
        run_id: str,
        action: TrainAction,
        *,
        principal: Principal | None,
        request: str | None = None,
    ) -> Envelope[TrainControl]:
        """Pause, resume or cancel a run."""
        data = _valid(
            TrainControl, project=project, run_id=run_id, action=action, request=_named(request),
            principal=principal,
        )  # fmt: skip
        return await self._send(data)

    async def evaluate(
        self, project: str, run_id: str, order: EvaluationOrder, *, principal: Principal | None
    ) -> Envelope[EvalRequested]:
        """Ask for another evaluation of a run."""
        told = order.model_dump(exclude={"request", "criteria"})
        data = _valid(
            EvalRequested, project=project, run_id=run_id, criteria=order.criteria, principal=principal,
            request=_named(order.request), **told,
        )  # fmt: skip
        return await self._send(data)

    async def command(
        self,
        project: str,
        model_id: str,
        action: str,
        *,
        reason: str,
        force: bool,
        generation: int | None,
        principal: Principal | None,
        request: str | None = None,
    ) -> Envelope[ModelCommanded]:
        """Give a command on a model. The registry's answer names the event."""
        data = _valid(
            ModelCommanded, project=project, model_id=model_id, action=action, reason=reason, force=force,
            generation=generation, request=_named(request), principal=principal,
        )  # fmt: skip
        return await self._send(data)

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

    async def withdraw(
        self, project: str, documents: tuple[str, ...], *, reason: str, principal: Principal | None
    ) -> list[Envelope[DocumentWithdrawn]]:
        """Withdraw documents: later dataset versions do not hold them."""
        events = [
            _valid(DocumentWithdrawn, project=project, document_id=name, reason=reason, principal=principal)
            for name in documents
        ]
        return [await self._send(event) for event in events]

    async def choose(
        self, project: str, completions: Mapping[str, tuple[int, int]], *, principal: Principal | None
    ) -> Envelope[CompletionsChosen]:
        """Ask for labels of completions. ``completions``: by id, the partition and the offset on the log. The
        same completions give the same event."""
        places = [
            {"completion_id": name, "partition": partition, "offset": offset}
            for name, (partition, offset) in sorted(completions.items())
        ]
        data = _valid(
            CompletionsChosen, project=project, request_id=request_for(completions), completions=places,
            principal=principal,
        )  # fmt: skip
        return await self._send(data)

    async def judge(
        self,
        project: str,
        records: tuple[str, ...],
        *,
        verdict: str,
        comment: str,
        principal: Principal | None,
        request: str | None = None,
    ) -> list[Envelope[RecordJudged]]:
        """Release records from quarantine, or refuse them."""
        told = {"verdict": verdict, "comment": comment, "request": _named(request), "principal": principal}
        events = [_valid(RecordJudged, project=project, record_id=name, **told) for name in records]
        return [await self._send(event) for event in events]

    async def redeliver(
        self, letter: DeadLetter, at: Position, *, principal: Principal | None
    ) -> Envelope[RedeliveryRequested]:
        """Let ingest write the message of a dead letter, which lies ``at`` its place, to its topic again."""
        data = _valid(
            RedeliveryRequested, project=letter.project, letter_id=letter.letter_id, topic=letter.topic,
            partition=at.partition, offset=at.offset, principal=principal,
        )  # fmt: skip
        return await self._send(data)

    async def erase(
        self, project: str, *, principal: Principal | None, requested_at: datetime, **told: Any
    ) -> Envelope[ErasureRequested]:
        """Ask every holder of data to erase what was published about a person, or from one source."""
        data = _valid(
            ErasureRequested, project=project, requested_at=requested_at, principal=principal, **told
        )
        return await self._send(data)

    async def _send(self, data: E, *, cause: Envelope[Any] | None = None) -> Envelope[E]:
        event = self._sign(self._service.new(data, cause=cause))
        await self._service.publish(event)
        self._applied(event)
        return event


def _named(request: str | None) -> str:
    return request or f"console-{uuid.uuid4().hex}"


def _valid(event_class: type[E], **fields: Any) -> E:
    try:
        return event_class.model_validate(fields, context=at_door())
    except ValidationError as error:
        raise Refused.of(error) from error
