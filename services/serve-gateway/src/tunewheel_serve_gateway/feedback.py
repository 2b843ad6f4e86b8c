"""What users and experts say of a completion: joined with it, and turned into an event."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationError
from tunewheel_contracts.errors import first_complaint
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.events.upstream import Answer, FeedbackReceived
from tunewheel_contracts.fields import Slug, SourceId, Strict, Text
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.identity import content_id
from tunewheel_runtime.identity.roles import Caller

from tunewheel_serve_gateway.errors import BadRequest, Unprocessable

WITH_TEXTS = ("full", "redacted")


class FeedbackBody(Strict):
    """The body of ``POST /v1/feedback``. All but the first two may be left out where the completion is on the
    log, with its texts."""

    completion_id: SourceId
    rating: Literal["up", "down"]
    correction: Answer | None = None
    """What the answer should have been: text, or the JSON object itself."""
    comment: Text | None = None
    submitted_by: SourceId | None = None
    customer: SourceId | None = None
    """Whose request was answered; else the ``user`` of the completion."""
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


def join(
    body: FeedbackBody, project: str, known: InferenceCompleted | None, caller: Caller
) -> FeedbackReceived:
    """Complete ``body`` by the completion of ``project`` that it is about, as far as it is ``known``. The
    same feedback sent twice is one event. What was logged of the conversation counts, whatever ``body`` says.

    Raises:
        Unprocessable: ``body`` names another project, or a correction lacks its conversation.
    """
    if body.project not in (None, project):
        raise Unprocessable(
            f"completion {body.completion_id} is not of project {body.project}; leave 'project' out",
            param="project",
        )
    logged = known if known is not None and known.texts in WITH_TEXTS else None
    messages = logged.messages if logged is not None else body.messages
    if body.correction is not None and not any(message.role == "user" for message in messages):
        raise Unprocessable(
            f"the conversation of completion {body.completion_id} is not on the log (it was not logged, is "
            "not there yet, or no more), so the correction needs 'messages': send what was answered",
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
        output=logged.output if logged is not None else body.output,
        correction=body.correction,
        submitted_by=body.submitted_by or caller.name,
        comment=body.comment,
        principal=caller.principal,
    )
