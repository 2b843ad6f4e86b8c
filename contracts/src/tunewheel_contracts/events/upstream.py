"""Events that other systems publish: tickets, documents, validated examples, feedback, project specs,
withdrawals and requests for erasure."""

from __future__ import annotations

import operator
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tunewheel_contracts.errors import inconsistent
from tunewheel_contracts.event import UpstreamEvent
from tunewheel_contracts.fields import ArtifactRef, JsonObject, RelativePath, Slug, SourceId, Text, Timestamp
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.formats.document import AllowedGroups, MediaType, is_text
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.principal import OptionalAuthority, OptionalPrincipal
from tunewheel_contracts.topic import TopicSpec

Attributes = Annotated[dict[str, str], Field(max_length=64)]
Answer = JsonObject | Text
Turns = Annotated[tuple[ChatMessage, ...], Field(max_length=200)]


class TicketPublished(UpstreamEvent):
    """A support ticket, with an expert's answer if there is one."""

    type: ClassVar[str] = "ticket.published"
    subject_field: ClassVar[str] = "ticket_id"
    key_field: ClassVar[str] = "ticket_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("subject", "body", "answer", "validated_by")
    identity_when_given: ClassVar[tuple[str, ...]] = ("thread", "media_type")

    project: Slug
    ticket_id: SourceId
    subject: Text = ""
    body: Annotated[Text, Field(min_length=1)]
    """The text to answer. In a longer thread it is the customer's last message."""
    thread: Turns = ()
    """The messages before ``body``, oldest first: ``user`` is the customer, ``assistant`` the agent."""
    customer: SourceId | None = None
    channel: SourceId | None = None
    answer: Answer | None = None
    validated_by: SourceId | None = None
    validated_at: Timestamp | None = None
    created_at: Timestamp | None = None
    attributes: Attributes = {}
    media_type: Annotated[
        Literal["text/plain", "text/html"] | None, Field(exclude_if=lambda kind: kind is None)
    ] = None
    """Format of ``body``, ``thread`` and a text ``answer``. HTML is read as Markdown. Null: a text that
    begins and ends with HTML markup is HTML, any other text is plain."""
    principal: OptionalPrincipal = None
    authority: OptionalAuthority = None


class DocumentPublished(UpstreamEvent):
    """An SOP or other document, as text or as a file. ``document_id`` is the same for all versions of a
    document; the newest version replaces the older ones."""

    type: ClassVar[str] = "document.published"
    subject_field: ClassVar[str] = "document_id"
    key_field: ClassVar[str] = "document_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("title", "content", "media_type")
    identity_when_given: ClassVar[tuple[str, ...]] = ("file", "allowed_groups")

    project: Slug
    document_id: RelativePath
    title: Text = ""
    content: Text = ""
    """The text; empty if there is a ``file``."""
    file: ArtifactRef | None = None
    """The document's bytes in the object store, if it is not text or is too long for an event."""
    media_type: MediaType = "text/markdown"
    """A format that ingest reads (``services/ingest/README.md``). ``text/x-source``: source code in the
    language that the ending of the id names. A document of a type other than ``text/…`` is a file."""
    published_at: Timestamp | None = None
    allowed_groups: AllowedGroups = ()
    attributes: Attributes = {}
    principal: OptionalPrincipal = None
    authority: OptionalAuthority = None

    @model_validator(mode="after")
    def _text_or_file(self) -> Self:
        if bool(self.content) == (self.file is not None):
            both = "is given beside a file; send" if self.content else "is missing, and so is a file; send"
            raise inconsistent("content", f"{both} exactly one of the two")
        if self.file is None and not is_text(self.media_type):
            raise inconsistent(
                "media_type", f"is {self.media_type}, which is not text; send the bytes as a file instead"
            )
        return self


class DocumentWithdrawn(UpstreamEvent):
    """A document is withdrawn, or a ticket or an example: later dataset versions do not contain it. A
    publication after ``withdrawn_at`` brings it back. Its text is not erased; see ``erasure.requested`` for
    that."""

    type: ClassVar[str] = "document.withdrawn"
    subject_field: ClassVar[str] = "document_id"
    key_field: ClassVar[str] = "document_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("reason", "withdrawn_at")
    identity_when_given: ClassVar[tuple[str, ...]] = ("kind",)

    project: Slug
    document_id: RelativePath
    """``document_id`` of the document, or ``ticket_id`` or ``example_id``, as ``kind`` says."""
    kind: Annotated[
        Literal["document", "ticket", "example"], Field(exclude_if=lambda kind: kind == "document")
    ] = "document"
    reason: Text = ""
    withdrawn_at: Timestamp | None = None
    """Publications up to this time are withdrawn. Null: up to this event's ``ce_time``."""
    principal: OptionalPrincipal = None


class ExamplePublished(UpstreamEvent):
    """A question with its answer. ``validated_by`` names the expert who validated the answer, if one did."""

    type: ClassVar[str] = "example.published"
    subject_field: ClassVar[str] = "example_id"
    key_field: ClassVar[str] = "example_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("input", "output", "validated_by")
    identity_when_given: ClassVar[tuple[str, ...]] = ("messages", "rejected_output")

    project: Slug
    example_id: SourceId
    input: Annotated[Text, Field(min_length=1)]
    """The question. In a longer conversation it is the last one."""
    messages: Turns = ()
    """The conversation before ``input``, oldest first."""
    output: Answer
    rejected_output: Answer | None = None
    """An answer to avoid, in addition to the right one. Preference training learns from such pairs."""
    group: SourceId | None = None
    validated_by: SourceId | None = None
    validated_at: Timestamp | None = None
    attributes: Attributes = {}
    principal: OptionalPrincipal = None
    authority: OptionalAuthority = None


class FeedbackReceived(UpstreamEvent):
    """Feedback of a user or an expert on one completion. A correction becomes a new example."""

    type: ClassVar[str] = "feedback.received"
    subject_field: ClassVar[str] = "feedback_id"
    key_field: ClassVar[str] = "completion_id"

    project: Slug
    feedback_id: SourceId
    completion_id: SourceId
    customer: SourceId | None = None
    """The user whose request was answered: the same name as in the user's tickets, so that an erasure finds
    the feedback."""
    model_id: SourceId | None = None
    rating: Literal["up", "down"]
    messages: tuple[ChatMessage, ...] = ()
    """The conversation before the answer."""
    output: Text | None = None
    correction: Answer | None = None
    submitted_by: SourceId | None = None
    comment: Text | None = None
    overrides: Annotated[tuple[str, ...], Field(max_length=32, exclude_if=operator.not_)] = ()
    """Settings of the project that the client had replaced, as in the ``inference.completed`` of the
    answer."""
    pinned: Annotated[bool, Field(exclude_if=operator.not_)] = False
    """Whether the answer's ``inference.completed`` is ``pinned``. A rollout does not compare such answers."""
    principal: OptionalPrincipal = None
    authority: OptionalAuthority = None


class ErasureRequested(UpstreamEvent):
    """A request for erasure (GDPR article 17): all data that was published up to the request about one
    person, or from one source, is erased. ``erasure.completed`` is the proof."""

    type: ClassVar[str] = "erasure.requested"
    subject_field: ClassVar[str] = "erasure_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("customer", "source_id", "requested_at")

    project: Slug
    erasure_id: SourceId
    """Id of the request, such as the number of the letter that asked for the erasure."""
    customer: SourceId | None = None
    """The person: the ``customer`` of tickets and feedback, the ``group`` of examples."""
    source_id: SourceId | None = None
    """One source: the id of a ticket, document or example, or of the completion that feedback is about."""
    requested_by: SourceId
    requested_at: Timestamp | None = None
    """Data that was published up to this time is erased. Null: up to this event's ``ce_time``."""
    reason: Text = ""
    principal: OptionalPrincipal = None

    @model_validator(mode="after")
    def _one_subject(self) -> Self:
        if (self.customer is None) == (self.source_id is None):
            raise inconsistent(
                "customer", "or source_id must name what to erase; send exactly one of the two"
            )
        return self


class ProjectDeclared(UpstreamEvent):
    """A project spec, which is in force from now on."""

    type: ClassVar[str] = "project.declared"
    subject_field: ClassVar[str] = "project"
    identity_fields: ClassVar[tuple[str, ...]] = ("spec",)

    project: Slug
    spec: ProjectSpec
    principal: OptionalPrincipal = None


TICKET_PUBLISHED = TopicSpec(TicketPublished, ("upstream", "ingest"), ("ingest",), 3, deleted_by="ingest")
DOCUMENT_PUBLISHED = TopicSpec(DocumentPublished, ("upstream", "ingest"), ("ingest",), 3, deleted_by="ingest")
DOCUMENT_WITHDRAWN = TopicSpec(
    DocumentWithdrawn,
    ("upstream", "ingest", "console"),
    ("curate", "index"),
    3,
    replayed_by=("index",),
)
EXAMPLE_PUBLISHED = TopicSpec(
    ExamplePublished,
    ("upstream", "ingest", "eval", "console", "curate"),
    ("ingest",),
    3,
    deleted_by="ingest",
)
FEEDBACK_RECEIVED = TopicSpec(
    FeedbackReceived, ("upstream", "serve-gateway"), ("ingest", "monitor"), 3, deleted_by="ingest"
)
ERASURE_REQUESTED = TopicSpec(
    ErasureRequested,
    ("upstream", "ingest", "eval", "console"),
    ("ingest", "curate", "monitor", "serve-gateway", "index"),
)
PROJECT_DECLARED = TopicSpec(
    ProjectDeclared,
    ("console",),
    ("ingest", "curate", "registry", "serve-gateway", "monitor", "index"),
    cleanup="compact",
    replayed_by=("ingest", "curate", "serve-gateway", "monitor", "index"),
    elects=("registry", "index"),
)
