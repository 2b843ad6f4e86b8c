"""The actions of people on the page or over HTTP. Every action is one event, which names the person."""

from __future__ import annotations

import uuid
from enum import StrEnum
from typing import Any, Literal

from tunewheel_contracts.event import E, Envelope
from tunewheel_contracts.events.data import BuildReason, DatasetRequested
from tunewheel_contracts.events.evaluation import ReviewRequested, ReviewSubmitted
from tunewheel_contracts.events.lifecycle import ModelCommanded
from tunewheel_contracts.events.training import TrainAction, TrainControl
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.service import Service


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
    """Publishes actions. Every method raises ``TransientError`` while the broker is away."""

    def __init__(self, service: Service) -> None:
        self._service = service

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
        for that version.

        Raises:
            ValidationError: the reviewer's name is empty or has control characters.
        """
        asked = request.data
        data = ReviewSubmitted(
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
        answered = self._service.new(answer, cause=request)
        await self._service.publish(answered)
        return answered

    async def build(self, project: str, *, principal: Principal | None) -> None:
        """Ask for a new dataset version."""
        data = DatasetRequested(
            project=project,
            reason=BuildReason.COMMAND,
            request=f"console-{uuid.uuid4().hex}",
            principal=principal,
        )
        await self._service.publish(self._service.new(data))

    async def control(
        self, project: str, run_id: str, action: TrainAction, *, principal: Principal | None
    ) -> None:
        """Pause, resume or cancel a run."""
        data = TrainControl(
            project=project,
            run_id=run_id,
            action=action,
            request=f"console-{uuid.uuid4().hex}",
            principal=principal,
        )
        await self._service.publish(self._service.new(data))

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
    ) -> str:
        """Publish a command on a model. Return the command's id, which the registry's answer names.

        Raises:
            ValidationError: the model's id or the reason is invalid.
        """
        data = ModelCommanded(
            project=project,
            model_id=model_id,
            action=action,
            reason=reason,
            force=force,
            generation=generation,
            request=f"console-{uuid.uuid4().hex}",
            principal=principal,
        )
        event = self._service.new(data)
        await self._service.publish(event)
        return event.id
