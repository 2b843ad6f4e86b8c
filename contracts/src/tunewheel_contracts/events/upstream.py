"""What other systems publish: tickets, documents, validated examples, feedback, project specs."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tunewheel_contracts.event import UpstreamEvent
from tunewheel_contracts.fields import JsonObject, RelativePath, Slug, SourceId, Text, Timestamp
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.formats.spec import ProjectSpec

Attributes = Annotated[dict[str, str], Field(max_length=64)]
Answer = JsonObject | Text


class TicketPublished(UpstreamEvent):
    """A support ticket, with the expert's answer where there is one."""

    type: ClassVar[str] = "ticket.published"
    subject_field: ClassVar[str] = "ticket_id"
    key_field: ClassVar[str] = "ticket_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("subject", "body", "answer", "validated_by")

    project: Slug
    ticket_id: SourceId
    subject: Text = ""
    body: Annotated[Text, Field(min_length=1)]
    customer: SourceId | None = None
    channel: SourceId | None = None
    answer: Answer | None = None
    validated_by: SourceId | None = None
    validated_at: Timestamp | None = None
    created_at: Timestamp | None = None
    attributes: Attributes = {}


class DocumentPublished(UpstreamEvent):
    """An SOP or other document. ``document_id`` is the name it keeps over its versions."""

    type: ClassVar[str] = "document.published"
    subject_field: ClassVar[str] = "document_id"
    key_field: ClassVar[str] = "document_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("title", "content", "media_type")

    project: Slug
    document_id: RelativePath
    title: Text = ""
    content: Annotated[Text, Field(min_length=1)]
    media_type: Literal["text/markdown", "text/plain", "text/html"] = "text/markdown"
    published_at: Timestamp | None = None
    attributes: Attributes = {}


class ExamplePublished(UpstreamEvent):
    """A question with the answer an expert stands behind."""

    type: ClassVar[str] = "example.published"
    subject_field: ClassVar[str] = "example_id"
    key_field: ClassVar[str] = "example_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("input", "output", "validated_by")

    project: Slug
    example_id: SourceId
    input: Annotated[Text, Field(min_length=1)]
    output: Answer
    group: SourceId | None = None
    validated_by: SourceId | None = None
    validated_at: Timestamp | None = None
    attributes: Attributes = {}


class FeedbackReceived(UpstreamEvent):
    """What a user or an expert says of one completion; a correction is a new example."""

    type: ClassVar[str] = "feedback.received"
    subject_field: ClassVar[str] = "feedback_id"
    key_field: ClassVar[str] = "completion_id"

    project: Slug
    feedback_id: SourceId
    completion_id: SourceId
    model_id: SourceId | None = None
    rating: Literal["up", "down"]
    messages: tuple[ChatMessage, ...] = ()
    """The conversation that was answered, without the answer."""
    output: Text | None = None
    correction: Answer | None = None
    submitted_by: SourceId | None = None
    comment: Text | None = None


class ProjectDeclared(UpstreamEvent):
    """A project spec, in force from here on."""

    type: ClassVar[str] = "project.declared"
    subject_field: ClassVar[str] = "project"
    identity_fields: ClassVar[tuple[str, ...]] = ("spec",)

    project: Slug
    spec: ProjectSpec
