"""What ingest and curate produce: records, dataset versions, the proof of an erasure."""

from __future__ import annotations

import operator
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tunewheel_contracts.event import Event
from tunewheel_contracts.fields import ArtifactRef, Sha256, Slug, SourceId, Text, Timestamp
from tunewheel_contracts.formats.dataset import ChatMessage, DatasetCounts, FunnelStage, RecordsUpto
from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_contracts.principal import OptionalPrincipal


class RecordKind(StrEnum):
    TICKET = "ticket"
    DOCUMENT = "document"
    EXAMPLE = "example"
    FEEDBACK = "feedback"


class Trust(StrEnum):
    """How far a record's output can be believed, least first."""

    UNVERIFIED = "unverified"
    CORRECTED = "corrected"
    EXPERT = "expert"


class RecordIngested(Event):
    """One normalised record. ``record_id`` is ``rec-`` and digits of the hash of project, kind, source and
    content: the same content twice is the same record. Its ``ce_time`` is that of the event it was made from,
    however late ingest read it: withdrawals and erasures compare with it."""

    type: ClassVar[str] = "record.ingested"
    subject_field: ClassVar[str] = "record_id"
    key_field: ClassVar[str] = "record_id"

    project: Slug
    record_id: Slug
    kind: RecordKind
    source_id: SourceId
    source_event_id: str
    title: Text = ""
    input: Text
    """What the model will be asked (ticket, question), or a document's text."""
    output: Text | None = None
    """The answer; JSON text where the project's answers are JSON. None: nothing to learn from yet."""
    rejected_output: Text | None = None
    """An answer to avoid, in the form of ``output``."""
    rating: Literal["up", "down"] | None = None
    """A thumb without a correction: such a record has no ``output``, and its ``rated_output`` counts where
    the project's spec says so (``dataset.ratings``), less than what has any ``trust``."""
    rated_output: Text | None = None
    """The served answer that the thumb was for."""
    history: tuple[ChatMessage, ...] = ()
    """The conversation before ``input``, oldest first, without system messages."""
    sections: tuple[DocumentSection, ...] = ()
    """A document in pieces with their places; ``input`` is the whole as Markdown."""
    group: SourceId
    """Customer, thread or document: never split between train and holdout."""
    trust: Trust = Trust.UNVERIFIED
    validated_by: SourceId | None = None
    validated_at: Timestamp | None = None
    """When ``validated_by`` stood behind the answer, where the source says so."""
    occurred_at: Timestamp | None = None
    """When the answer was validated or the document published; of a ticket that does not say when it was
    validated: when it was created, which all its versions share."""
    attributes: dict[str, str] = {}


class BuildReason(StrEnum):
    COUNT = "count"
    QUIET = "quiet"
    COMMAND = "command"
    DRIFT = "drift"


class DatasetRequested(Event):
    """Somebody, or the build policy, wants a new version. ``request`` tells requests apart: for a policy
    it names the set of records that tripped it."""

    type: ClassVar[str] = "dataset.requested"
    subject_field: ClassVar[str] = "project"
    identity_fields: ClassVar[tuple[str, ...]] = ("reason", "request")
    identity_when_given: ClassVar[tuple[str, ...]] = ("principal",)

    project: Slug
    reason: BuildReason
    request: Annotated[str, Field(min_length=1, max_length=256)]
    records_upto: RecordsUpto | None = None
    """The records to build from, by partition of ``record.ingested``. None: those on the log when curate
    reads the request; it answers with a request that names them."""
    withdrawals_upto: RecordsUpto | None = None
    """The withdrawals to honour, by partition of ``document.withdrawn``. None: those known at the build."""
    principal: OptionalPrincipal = None
    alarm_ids: Annotated[tuple[Slug, ...], Field(max_length=64, exclude_if=operator.not_)] = ()
    """Open alarms that the turn is to mend: ``alarm_id`` of their ``drift.detected``."""
    awaits_index: Annotated[bool, Field(exclude_if=operator.not_)] = False
    """The project trains with passages, and has no index yet. Curate answers with a request that names
    records and index once there is one."""
    index_id: Annotated[Slug | None, Field(exclude_if=lambda name: name is None)] = None
    """The index version to take passages from, beside the records; None: none, or the newest at the build."""
    index: Annotated[ArtifactRef | None, Field(exclude_if=lambda ref: ref is None)] = None
    """Its ``IndexManifest``."""


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
    """Why this version is only a first try; None for one that is large enough."""
    previous: Slug | None = None
    """The project's version before this one."""
    training_sha256: Annotated[Sha256 | None, Field(exclude_if=operator.not_)] = None
    """Hash of the spec without what changes neither rows nor training. None: a release before this field."""
    missing_records: Annotated[int | None, Field(ge=1, exclude_if=lambda count: count is None)] = None
    """Records of all projects that were removed from the log before curate read them: this version may be
    smaller for it. None where there are none."""
    index_id: Annotated[Slug | None, Field(exclude_if=lambda name: name is None)] = None
    """As in ``DatasetManifest``: the index version whose passages stand in the rows that train."""
    index: Annotated[ArtifactRef | None, Field(exclude_if=lambda ref: ref is None)] = None
    """Its ``IndexManifest``."""


class DatasetRejected(Event):
    """The records do not make a dataset; ``reasons`` say what to mend."""

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


class ErasureCompleted(Event):
    """The proof that one holder of data carried an erasure out: what went, by whom, when. Every holder gives
    its own. Kafka's topics keep what was published until their retention ends."""

    type: ClassVar[str] = "erasure.completed"
    subject_field: ClassVar[str] = "erasure_id"
    identity_when_given: ClassVar[tuple[str, ...]] = ("holder",)

    project: Slug
    erasure_id: SourceId
    holder: Slug = "curate"
    """Whose data it was: ``curate`` (records, dataset versions), ``ingest`` (stored files, dead letters),
    ``eval`` (what models wrote on held-out examples), ``monitor`` (drift excerpts), ``serve-gateway``
    (completions that wait for the broker, or for feedback) or ``index`` (passages of documents)."""
    customer: SourceId | None = None
    source_id: SourceId | None = None
    requested_by: SourceId
    erased_by: SourceId
    """The service that carried it out."""
    completed_at: Timestamp
    records: Annotated[int, Field(ge=0)]
    """Records, files, letters, outputs, excerpts or completions that were known and are no more."""
    dataset_ids: tuple[Slug, ...] = ()
    """Versions that held some of them, sorted; named by ``curate`` alone."""
    deleted_dataset_ids: tuple[Slug, ...] = ()
    """Of these, the versions whose rows were deleted with them; the others still hold them."""
    model_ids: tuple[Slug, ...] = ()
    """Adapters that were trained on these versions, sorted; they are not changed. One whose training ends
    later names its version in ``train.completed``. Named by ``curate`` alone."""
    finding: ArtifactRef | None = None
    """JSON of ``ErasureFinding``: which records went; named by ``curate`` alone."""
