"""What users and experts say of a completion: joined with it, and turned into an event."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationError
from tunewheel_contracts.errors import first_complaint
from tunewheel_contracts.events.upstream import Answer, FeedbackReceived
from tunewheel_contracts.fields import Slug, SourceId, Strict, Text
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.identity import content_id
from tunewheel_runtime.identity.roles import Caller, NotAuthorised, Role

from tunewheel_serve_gateway.errors import BadRequest, Unprocessable
from tunewheel_serve_gateway.exchange import Exchange


class FeedbackBody(Strict):
    """The body of ``POST /v1/feedback``. All but the first two may be left out while the gateway still
    remembers the completion."""

    completion_id: SourceId
    rating: Literal["up", "down"]
    correction: Answer | None = None
    """What the answer should have been: text, or the JSON object itself."""
    comment: Text | None = None
    submitted_by: SourceId | None = None
    customer: SourceId | None = None
    """Whose request was answered; else the ``user`` of the completion, while it is remembered."""
    project: Slug | None = None
    model_id: SourceId | None = None
    messages: tuple[ChatMessage, ...] = Field(default=(), max_length=1_000)
    output: Text | None = None


def parse_feedback(raw: bytes) -> FeedbackBody:
    """Read a body.

    Raises:
        BadRequest: ``param`` names the field that is wrong.
    """
    try:
        return FeedbackBody.model_validate_json(raw)
    except ValidationError as error:
        field, reason = first_complaint(error)
        raise BadRequest(f"{field}: {reason}", param=field) from error


def join(body: FeedbackBody, known: Exchange | None, caller: Caller) -> FeedbackReceived:
    """Complete ``body`` by the completion it is about. The same feedback sent twice is one event.

    Raises:
        Unprocessable: the completion is not remembered and ``body`` does not bring what is needed.
        NotAuthorised: the caller is no application of the completion's project.
    """
    project = known.project if known is not None else _project(body, caller)
    if not caller.may(Role.APPLICATION, project):  # whose it is, is not for the caller to know
        raise NotAuthorised(
            f"{caller.name} lacks the role application in the project of {body.completion_id}; "
            "ask for it, or use another key"
        )
    messages = body.messages or _messages(known)
    if body.correction is not None and not any(message.role == "user" for message in messages):
        raise Unprocessable(
            f"completion {body.completion_id} is not remembered here any more, so the correction needs "
            "'messages': send the conversation that was answered",
            param="messages",
        )
    said = body.model_dump(mode="json", include={"completion_id", "rating", "correction", "comment"})
    identity = {**said, "project": project, "submitted_by": body.submitted_by or caller.name}
    return FeedbackReceived(
        project=project,
        feedback_id=content_id("fb", identity),
        completion_id=body.completion_id,
        customer=body.customer or (known.customer if known is not None else None),
        model_id=known.model_id if known is not None else body.model_id,
        rating=body.rating,
        messages=messages,
        output=known.output if known is not None else body.output,
        correction=body.correction,
        submitted_by=body.submitted_by or caller.name,
        comment=body.comment,
        principal=caller.principal,
    )


def _project(body: FeedbackBody, caller: Caller) -> str:
    if body.project is not None:
        return body.project
    projects = caller.projects_of(Role.APPLICATION)
    if projects is not None and len(projects) == 1:
        return next(iter(projects))
    raise Unprocessable(
        f"completion {body.completion_id} is not remembered here any more; send its 'project'",
        param="project",
    )


def _messages(known: Exchange | None) -> tuple[ChatMessage, ...]:
    if known is None:
        return ()
    return tuple(ChatMessage.model_validate({"role": r, "content": c}) for r, c in known.messages)
