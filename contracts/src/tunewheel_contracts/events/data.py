"""Events of ingest and curate: records, dataset versions, proofs of erasure."""

from __future__ import annotations

import operator
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tunewheel_contracts.event import Event
from tunewheel_contracts.fields import ArtifactRef, Sha256, Slug, SourceId, Text, Timestamp
from tunewheel_contracts.formats.dataset import ChatMessage, DatasetCounts, FunnelStage, RecordsUpto
from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_contracts.principal import OptionalAuthority, OptionalPrincipal, OptionalSignature, Trust
from tunewheel_contracts.topic import TopicSpec


class RecordKind(StrEnum):
    TICKET = "ticket"
    DOCUMENT = "document"
    EXAMPLE = "example"
    FEEDBACK = "feedback"


class RecordIngested(Event):
    """One normalised record. ``record_id`` is ``rec-`` and digits of the hash of project, kind, source and
    content, so the same content twice is the same record. ``ce_time`` is the time of the event from which the
    record was made, because withdrawals and erasures compare with it."""

    type: ClassVar[str] = "record.ingested"
    subject_field: ClassVar[str] = "record_id"
    caps_dates: ClassVar[bool] = True
    key_field: ClassVar[str] = "record_id"

    project: Slug
    record_id: Slug
    kind: RecordKind
    source_id: SourceId
    source_event_id: str
    title: Text = ""
    input: Text
    """The model's input (ticket, question), or a document's text."""
    output: Text | None = None
    """The answer; JSON text if the project's answers are JSON. Null: there is no answer to learn from yet."""
    rejected_output: Text | None = None
    """An answer to avoid, in the form of ``output``."""
    rating: Literal["up", "down"] | None = None
    """A thumb without a correction. Such a record has no ``output``. Its ``rated_output`` is used only if the
    project's spec says so (``dataset.ratings``), and counts less than an output with any ``trust``."""
    rated_output: Text | None = None
    """The served answer that was rated."""
    history: tuple[ChatMessage, ...] = ()
    """The conversation before ``input``, oldest first, without system messages."""
    sections: tuple[DocumentSection, ...] = ()
    """The parts of a document with their positions; ``input`` is the whole document as Markdown."""
    group: SourceId
    """Customer, thread or document. Records of one group are never split between training and holdout."""
    trust: Trust = Trust.UNVERIFIED
    validated_by: SourceId | None = None
    validated_at: Timestamp | None = None
    """When ``validated_by`` validated the answer, if the source states it."""
    occurred_at: Timestamp | None = None
    """When the answer was validated or the document was published. For a ticket without a time of validation:
    when it was created, which is the same in all versions of the ticket."""
    attributes: dict[str, str] = {}
    authority: OptionalAuthority = None
    """The most trust that the caller's roles granted. Only where a door signed the event."""
    principal: OptionalPrincipal = None
    """The caller whom the door identified. Only where a door signed the event."""


class BuildReason(StrEnum):
    COUNT = "count"
    QUIET = "quiet"
    COMMAND = "command"
    DRIFT = "drift"


class DatasetRequested(Event):
    """A person or the build policy requests a new dataset version. ``request`` identifies the request; for a
    policy it names the set of records that triggered the build."""

    type: ClassVar[str] = "dataset.requested"
    subject_field: ClassVar[str] = "project"
    identity_fields: ClassVar[tuple[str, ...]] = ("reason", "request")
    identity_when_given: ClassVar[tuple[str, ...]] = ("principal",)

    project: Slug
    reason: BuildReason
    request: Annotated[str, Field(min_length=1, max_length=256)]
    records_upto: RecordsUpto | None = None
    """The records to build from, as offsets by partition of ``record.ingested``. Null: the records on the log
    when curate reads the request; curate then publishes a request that names them."""
    withdrawals_upto: RecordsUpto | None = None
    """The withdrawals to apply, as offsets by partition of ``document.withdrawn``. Null: those known at the
    build."""
    principal: OptionalPrincipal = None
    signature: OptionalSignature = None
    alarm_ids: Annotated[tuple[Slug, ...], Field(max_length=64, exclude_if=operator.not_)] = ()
    """Open alarms that the turn should resolve: ``alarm_id`` of their ``drift.detected``."""
    awaits_index: Annotated[bool, Field(exclude_if=operator.not_)] = False
    """The project trains with passages, but has no index yet. Once there is an index, curate publishes a
    request that names records and index."""
    index_id: Annotated[Slug | None, Field(exclude_if=lambda name: name is None)] = None
    """The index version from which passages are taken. Null: no passages, or the newest index at the
    build."""
    index: Annotated[ArtifactRef | None, Field(exclude_if=lambda ref: ref is None)] = None
    """The index version's ``IndexManifest``."""
    release: Annotated[Slug | None, Field(exclude_if=lambda name: name is None)] = None
    """The ``held`` version of a ``dataset.rejected`` that a person releases. The records are then those of
    that version. Null: expectations may hold the version."""


class DatasetVersioned(Event):
    """An immutable dataset version is in the object store."""

    type: ClassVar[str] = "dataset.versioned"
    subject_field: ClassVar[str] = "dataset_id"

    project: Slug
    dataset_id: Slug
    manifest: ArtifactRef
    spec_sha256: Sha256
    criteria_sha256: Sha256
    base_model: str
    counts: DatasetCounts
    funnel: tuple[FunnelStage, ...]
    reason: BuildReason = BuildReason.COMMAND
    records_upto: RecordsUpto | None = None
    withdrawals_upto: RecordsUpto | None = None
    preliminary: Text | None = None
    """Why this version is only preliminary; null: it is large enough."""
    previous: Slug | None = None
    """The project's previous version."""
    training_sha256: Annotated[Sha256 | None, Field(exclude_if=operator.not_)] = None
    """Hash of the parts of the spec that affect rows or training. Null: made by a release without this
    field."""
    judged_upto: Annotated[RecordsUpto | None, Field(exclude_if=operator.not_)] = None
    """The decisions about quarantined records that the build applied, as offsets by partition of
    ``record.judged``. Null: there was no decision."""
    missing_records: Annotated[int | None, Field(ge=1, exclude_if=lambda count: count is None)] = None
    """Number of records, of all projects, that were deleted from the log before curate read them; this
    version may lack some. Null: no record is missing."""
    index_id: Annotated[Slug | None, Field(exclude_if=lambda name: name is None)] = None
    """The index version whose passages are in the training rows; as in ``DatasetManifest``."""
    index: Annotated[ArtifactRef | None, Field(exclude_if=lambda ref: ref is None)] = None
    """The index version's ``IndexManifest``."""
    warnings: Annotated[tuple[Text, ...], Field(exclude_if=operator.not_)] = ()
    """Expectations that the version misses and was published with, in words."""


class DatasetRejected(Event):
    """No dataset version is published; ``reasons`` say what to correct, or why a version waits."""

    type: ClassVar[str] = "dataset.rejected"
    subject_field: ClassVar[str] = "project"
    identity_fields: ClassVar[tuple[str, ...]] = ("spec_sha256", "rows_sha256", "reasons")

    project: Slug
    spec_sha256: Sha256
    rows_sha256: Sha256
    training_sha256: Annotated[Sha256 | None, Field(exclude_if=operator.not_)] = None
    """As in ``dataset.versioned``."""
    reasons: Annotated[tuple[str, ...], Field(min_length=1)]
    funnel: tuple[FunnelStage, ...] = ()
    records_upto: RecordsUpto | None = None
    withdrawals_upto: RecordsUpto | None = None
    held: Annotated[Slug | None, Field(exclude_if=lambda name: name is None)] = None
    """The version that could be published and waits for a person, because it misses expectations. A
    ``dataset.requested`` with ``release`` publishes it. Null: there is no version."""
    judged_upto: Annotated[RecordsUpto | None, Field(exclude_if=operator.not_)] = None
    """As in ``dataset.versioned``."""


class RecordJudged(Event):
    """A person's decision about a record that waits in quarantine. The latest decision about a record
    counts."""

    type: ClassVar[str] = "record.judged"
    subject_field: ClassVar[str] = "record_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("verdict", "request")
    identity_when_given: ClassVar[tuple[str, ...]] = ("principal",)

    project: Slug
    record_id: Slug
    verdict: Literal["release", "refuse"]
    """``release``: the record counts from the next build on. ``refuse``: it stays out of every later
    version of the dataset and of the index."""
    comment: Text = ""
    request: Annotated[str, Field(min_length=1, max_length=256)]
    """Distinguishes repeated decisions."""
    principal: OptionalPrincipal = None
    signature: OptionalSignature = None


class RedeliveryRequested(Event):
    """A person's wish that a refused message is handled once more. Ingest writes the original again to its
    topic, with its id, time and signature, so that it has no more trust than before."""

    type: ClassVar[str] = "redelivery.requested"
    subject_field: ClassVar[str] = "letter_id"
    identity_when_given: ClassVar[tuple[str, ...]] = ("principal",)

    project: Slug
    letter_id: Annotated[str, Field(min_length=1, max_length=256)]
    """Names the dead letter: the service that refused the message, and the message's topic, partition and
    offset, with colons between them."""
    topic: Annotated[str, Field(min_length=1, max_length=128)]
    """The message's topic."""
    partition: Annotated[int, Field(ge=0)]
    """The dead letter's own partition, and its offset there."""
    offset: Annotated[int, Field(ge=0)]
    principal: OptionalPrincipal = None
    signature: OptionalSignature = None


class ErasureCompleted(Event):
    """The proof that one holder of data carried out an erasure: what was erased, by which service, when.
    Every holder publishes its own proof. The published events stay on Kafka's topics until their retention
    ends."""

    type: ClassVar[str] = "erasure.completed"
    subject_field: ClassVar[str] = "erasure_id"
    identity_when_given: ClassVar[tuple[str, ...]] = ("holder",)

    project: Slug
    erasure_id: SourceId
    holder: Slug = "curate"
    """The holder of the data: ``curate`` (records, dataset versions), ``ingest`` (stored files, dead
    letters), ``eval`` (models' answers to held-out examples), ``monitor`` (drift excerpts), ``serve-gateway``
    (completions that wait for the broker, or for feedback) or ``index`` (passages of documents)."""
    customer: SourceId | None = None
    source_id: SourceId | None = None
    requested_by: SourceId
    erased_by: SourceId
    """The service that carried out the erasure."""
    completed_at: Timestamp
    records: Annotated[int, Field(ge=0)]
    """Number of erased records, files, letters, outputs, excerpts or completions."""
    dataset_ids: tuple[Slug, ...] = ()
    """Dataset versions that held some of the erased records, sorted; only from ``curate``."""
    deleted_dataset_ids: tuple[Slug, ...] = ()
    """Those of ``dataset_ids`` whose rows were deleted; the others still hold the records."""
    model_ids: tuple[Slug, ...] = ()
    """Models that were trained on these versions, sorted. They are not changed. A model whose training ends
    later names its version in ``train.completed``. Only from ``curate``."""
    finding: ArtifactRef | None = None
    """JSON of ``ErasureFinding`` with the erased records; only from ``curate``."""


ERASURE_COMPLETED = TopicSpec(
    ErasureCompleted,
    ("ingest", "curate", "eval", "monitor", "serve-gateway", "index"),
    ("eval", "registry"),
    replayed_by=("registry",),
)
RECORD_INGESTED = TopicSpec(
    RecordIngested, ("ingest",), ("curate", "index"), 3, replayed_by=("index",), deleted_by="curate"
)
DATASET_REQUESTED = TopicSpec(
    DatasetRequested,
    ("curate", "console"),
    ("curate", "registry", "monitor"),
    3,
    replayed_by=("registry", "monitor"),
)
DATASET_VERSIONED = TopicSpec(
    DatasetVersioned,
    ("curate", "train"),
    ("curate", "train", "registry", "monitor", "eval"),
    4,
    replayed_by=("curate", "registry", "monitor", "eval"),
)
DATASET_REJECTED = TopicSpec(DatasetRejected, ("curate",), ("curate", "monitor"), 1, replayed_by=("monitor",))
RECORD_JUDGED = TopicSpec(RecordJudged, ("console",), ("curate", "index"), 1, replayed_by=("index",))
REDELIVERY_REQUESTED = TopicSpec(RedeliveryRequested, ("console",), ("ingest",))
