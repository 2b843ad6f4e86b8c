"""Feedback of users and experts on a completion. It is joined with the completion and becomes an event."""

from __future__ import annotations

import json
from typing import Literal

import structlog
from pydantic import Field, ValidationError
from tunewheel_contracts.errors import first_complaint
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.events.upstream import Answer, FeedbackReceived
from tunewheel_contracts.fields import Slug, SourceId, Strict, Text
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.identity import content_id
from tunewheel_contracts.principal import Trust
from tunewheel_runtime.identity.roles import Caller
from typing_extensions import TypedDict

from tunewheel_serve_gateway.completions.recording import policy_of
from tunewheel_serve_gateway.completions.redacting import clean
from tunewheel_serve_gateway.errors import BadRequest, Unprocessable

log = structlog.get_logger(__name__)
WITH_TEXTS = ("full", "redacted")


class FeedbackBody(Strict):
    """The body of ``POST /v1/feedback``. Only the first two fields are required, if the completion was logged
    with its texts."""

    completion_id: SourceId
    rating: Literal["up", "down"]
    correction: Answer | None = None
    """What the answer should have been: text, or the JSON object itself."""
    comment: Text | None = None
    submitted_by: SourceId | None = None
    customer: SourceId | None = None
    """The user whose request was answered. Default: the ``user`` of the completion."""
    project: Slug | None = None
    model_id: SourceId | None = None
    messages: tuple[ChatMessage, ...] = Field(default=(), max_length=1_000)
    output: Text | None = None


class FeedbackReceipt(TypedDict):
    feedback_id: str
    completion_id: str
    project: str


def parse_feedback(raw: bytes) -> FeedbackBody:
    """Read a body. Raises BadRequest: ``param`` names the field that is wrong."""
    try:
        return FeedbackBody.model_validate_json(raw)
    except ValidationError as error:
        field, reason = first_complaint(error)
        raise BadRequest(f"{field}: {reason}", param=field) from error


def join(
    body: FeedbackBody, project: str, completion: InferenceCompleted | None, caller: Caller
) -> FeedbackReceived:
    """Return the event for ``body``, with the conversation of its completion of ``project``.

    ``completion``: None where it was not found on the log. A logged conversation is used even where ``body``
    has another one. The same feedback sent twice gives the same event. Raises Unprocessable: ``body`` names
    another project, or a correction lacks its conversation.
    """
    if body.project not in (None, project):
        raise Unprocessable(
            f"completion {body.completion_id} does not belong to project {body.project}; leave 'project' out",
            param="project",
        )
    logged = completion if completion is not None and completion.texts in WITH_TEXTS else None
    messages, output = (logged or body).messages, (logged or body).output
    if completion is not None and logged is None and body.correction is None:
        messages, output = (), None  # The project logs no texts on purpose, and a rating needs none.
    if body.correction is not None and not any(message.role == "user" for message in messages):
        raise Unprocessable(
            f"the conversation of completion {body.completion_id} is not on the log (its texts were not "
            "logged, it is not there yet, or it was deleted); send the conversation in 'messages', "
            "along with the correction",
            param="messages",
        )
    said = body.model_dump(mode="json", include={"completion_id", "rating", "correction", "comment"})
    identity = {**said, "project": project, "submitted_by": body.submitted_by or caller.name}
    return FeedbackReceived(
        project=project,
        feedback_id=content_id("fb", identity),
        completion_id=body.completion_id,
        customer=body.customer or (completion.customer if completion is not None else None),
        model_id=completion.model_id if completion is not None else body.model_id,
        rating=body.rating,
        messages=messages,
        output=output,
        correction=body.correction,
        submitted_by=body.submitted_by or caller.name,
        comment=body.comment,
        overrides=completion.overrides if completion is not None else (),
        pinned=completion is not None and completion.pinned,
        principal=caller.principal,
        authority=caller.authority(project, least=Trust.CORRECTED),
    )


def as_allowed(data: FeedbackReceived, spec: ProjectSpec | None) -> FeedbackReceived:
    """Return ``data`` without the texts that ``serving.log`` excludes. Redaction takes milliseconds.

    A correction keeps its conversation even where the project logs no texts, because it becomes a training
    example. A rating whose texts cannot be redacted loses them. Raises Unprocessable: a correction cannot be
    redacted.
    """
    policy = policy_of(spec)
    if policy not in WITH_TEXTS and data.correction is None:
        return data.model_copy(update={"messages": (), "output": None})
    if spec is None or policy != "redacted":
        return data
    answers = [_written(data.correction), data.output or ""]
    try:
        said, (correction, output) = clean(
            spec, [*(message.content for message in data.messages), data.comment or ""], answers
        )
    except Exception as error:
        log.exception("feedback_not_redacted", project=spec.project)
        if data.correction is None:
            return data.model_copy(update={"messages": (), "output": None, "comment": None})
        raise Unprocessable(
            f"project {spec.project} logs redacted texts, and the correction cannot be redacted; correct the "
            "project's dataset.pii",
            param="correction",
        ) from error
    *contents, comment = said
    turns = zip(data.messages, contents, strict=True)
    return data.model_copy(
        update={
            "messages": tuple(turn.model_copy(update={"content": content}) for turn, content in turns),
            "output": output or data.output,
            "correction": json.loads(correction) if isinstance(data.correction, dict) else correction or None,
            "comment": comment or data.comment,
        }
    )


def _written(correction: Answer | None) -> str:
    if isinstance(correction, dict):
        return json.dumps(correction, ensure_ascii=False)
    return correction or ""
