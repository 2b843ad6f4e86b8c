"""The list of all topics. Topic creation, the catalogue in ``docs/`` and tests are generated from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tunewheel_contracts.event import Event
from tunewheel_contracts.events import (
    data,
    evaluation,
    lifecycle,
    monitoring,
    production,
    retrieval,
    training,
    upstream,
)

DAY_MS = 86_400_000
FOREVER = -1
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
DEAD_LETTER_OVERHEAD = 64 * 1024
"""Most bytes that a dead letter's headers add to the original message."""

Service = Literal[
    "upstream",
    "ingest",
    "curate",
    "train",
    "eval",
    "registry",
    "serve-gateway",
    "monitor",
    "index",
    "console",
    "cli",
]


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """The specification of one topic.

    ``retention_ms``: milliseconds, or ``FOREVER`` for topics from which state is rebuilt. ``consumers``:
    services that share the partitions, in the consumer group ``<service>.<topic>``; a topic with consumers
    has a dead-letter topic. ``replayed_by``: services of which every process reads the topic without a group.
    ``elects``: services whose active process is elected by the group ``<service>.active`` on this topic. The
    console reads every topic except ``NOT_SHOWN``, and is not listed.
    """

    event: type[Event]
    producers: tuple[Service, ...]
    consumers: tuple[Service, ...]
    partitions: int = 1
    cleanup: Literal["delete", "compact"] = "delete"
    retention_ms: int = FOREVER
    max_message_bytes: int = MAX_MESSAGE_BYTES
    replayed_by: tuple[Service, ...] = ()
    elects: tuple[Service, ...] = ()

    @property
    def name(self) -> str:
        return self.event.type

    @property
    def key(self) -> str:
        """The field of the data whose value is the record key."""
        return self.event.key_field

    @property
    def is_from_upstream(self) -> bool:
        """Whether other systems write this topic, so that its records cannot be trusted. The broker sets the
        timestamps of its records, because a record's timestamp is the latest time that its event may have
        (``Envelope.from_kafka``)."""
        return "upstream" in self.producers

    @property
    def is_kept_for_ever(self) -> bool:
        """Whether all events must stay on the log."""
        return self.cleanup == "delete" and self.retention_ms == FOREVER

    def is_tombstone(self, value: bytes | None) -> bool:
        """Return whether a record with this value is a tombstone, which removes its key: null, on a compacted
        topic."""
        return value is None and self.cleanup == "compact"

    @property
    def dead_letter(self) -> str:
        return f"{self.name}.dlq"

    @property
    def dead_letter_exists(self) -> bool:
        return bool(set(self.consumers) - set(self.replayed_by))

    def groups_of(self, service: str) -> tuple[str, ...]:
        """Return the consumer groups of ``service`` on this topic."""
        groups: list[str] = []
        if service in self.consumers and service not in self.replayed_by:
            groups.append(f"{service}.{self.name.replace('.', '-')}")
        if service in self.elects:
            groups.append(f"{service}.active")
        return tuple(groups)

    @property
    def summary(self) -> str:
        """The first paragraph of the event's docstring, on one line."""
        return " ".join((self.event.__doc__ or "").split("\n\n")[0].split())


TICKET_PUBLISHED = TopicSpec(upstream.TicketPublished, ("upstream", "ingest", "cli"), ("ingest",), 3)
DOCUMENT_PUBLISHED = TopicSpec(upstream.DocumentPublished, ("upstream", "ingest", "cli"), ("ingest",), 3)
DOCUMENT_WITHDRAWN = TopicSpec(
    upstream.DocumentWithdrawn,
    ("upstream", "ingest", "cli"),
    ("curate", "index"),
    3,
    replayed_by=("index",),
)
EXAMPLE_PUBLISHED = TopicSpec(
    upstream.ExamplePublished, ("upstream", "ingest", "eval", "console", "curate", "cli"), ("ingest",), 3
)
FEEDBACK_RECEIVED = TopicSpec(
    upstream.FeedbackReceived, ("upstream", "serve-gateway"), ("ingest", "monitor"), 3
)
ERASURE_REQUESTED = TopicSpec(
    upstream.ErasureRequested,
    ("upstream", "ingest", "eval", "cli"),
    ("ingest", "curate", "monitor", "serve-gateway", "index"),
)
ERASURE_COMPLETED = TopicSpec(
    data.ErasureCompleted,
    ("ingest", "curate", "eval", "monitor", "serve-gateway", "index"),
    ("eval", "registry"),
    replayed_by=("registry",),
)
PROJECT_DECLARED = TopicSpec(
    upstream.ProjectDeclared,
    ("cli",),
    ("ingest", "curate", "registry", "serve-gateway", "monitor", "index"),
    cleanup="compact",
    replayed_by=("ingest", "curate", "serve-gateway", "monitor", "index"),
    elects=("registry", "index"),
)

RECORD_INGESTED = TopicSpec(data.RecordIngested, ("ingest",), ("curate", "index"), 3, replayed_by=("index",))
DATASET_REQUESTED = TopicSpec(
    data.DatasetRequested,
    ("curate", "cli", "console"),
    ("curate", "registry", "monitor"),
    3,
    replayed_by=("registry", "monitor"),
)
DATASET_VERSIONED = TopicSpec(
    data.DatasetVersioned,
    ("curate",),
    ("curate", "train", "registry", "monitor"),
    4,
    replayed_by=("curate", "registry", "monitor"),
)
DATASET_REJECTED = TopicSpec(
    data.DatasetRejected, ("curate",), ("curate", "monitor"), 1, replayed_by=("monitor",)
)

TRAIN_CONTROL = TopicSpec(training.TrainControl, ("console", "cli"), ("train",), 1)
TRAIN_PLANNED = TopicSpec(training.TrainPlanned, ("train",), ("curate",), 1, replayed_by=("curate",))
TRAIN_STARTED = TopicSpec(
    training.TrainStarted,
    ("train",),
    ("curate", "train", "registry", "monitor"),
    1,
    replayed_by=("curate", "registry", "monitor"),
)
TRAIN_PROGRESSED = TopicSpec(training.TrainProgressed, ("train",), (), 1, retention_ms=7 * DAY_MS)
TRAIN_COMPLETED = TopicSpec(
    training.TrainCompleted,
    ("train",),
    ("curate", "train", "eval", "registry", "monitor"),
    4,
    replayed_by=("curate", "train", "monitor"),
)
TRAIN_FAILED = TopicSpec(
    training.TrainFailed,
    ("train",),
    ("curate", "train", "registry", "monitor"),
    1,
    replayed_by=("curate", "train", "registry", "monitor"),
)

EVAL_PASSED = TopicSpec(
    evaluation.EvalPassed,
    ("eval",),
    ("curate", "registry", "monitor"),
    1,
    replayed_by=("curate", "monitor"),
)
EVAL_FAILED = TopicSpec(
    evaluation.EvalFailed,
    ("eval",),
    ("curate", "registry", "monitor"),
    1,
    replayed_by=("curate", "monitor"),
)
EVAL_UNDECIDED = TopicSpec(
    evaluation.EvalUndecided,
    ("eval",),
    ("curate", "registry", "monitor"),
    1,
    replayed_by=("curate", "monitor"),
)
EVAL_REQUESTED = TopicSpec(
    evaluation.EvalRequested,
    ("registry", "console", "cli"),
    ("eval", "registry"),
    4,
    replayed_by=("registry",),
)
REVIEW_REQUESTED = TopicSpec(
    evaluation.ReviewRequested,
    ("eval",),
    ("curate", "eval", "registry", "monitor"),
    1,
    replayed_by=("curate", "registry", "monitor"),
)
REVIEW_ANSWERED = TopicSpec(
    evaluation.ReviewAnswered, ("console",), ("eval", "registry"), 1, replayed_by=("registry",)
)
REVIEW_SUBMITTED = TopicSpec(
    evaluation.ReviewSubmitted, ("console",), ("eval", "registry"), 1, replayed_by=("registry",)
)

MODEL_REGISTERED = TopicSpec(
    lifecycle.ModelRegistered, ("registry",), ("registry", "serve-gateway"), 1, replayed_by=("serve-gateway",)
)
MODEL_PROMOTED = TopicSpec(
    lifecycle.ModelPromoted,
    ("registry",),
    ("curate", "registry", "monitor", "serve-gateway"),
    1,
    replayed_by=("curate", "monitor", "serve-gateway"),
)
MODEL_ROLLEDBACK = TopicSpec(
    lifecycle.ModelRolledback,
    ("registry",),
    ("curate", "registry", "monitor"),
    1,
    replayed_by=("curate", "monitor"),
)
MODEL_COMMANDED = TopicSpec(lifecycle.ModelCommanded, ("console", "cli"), ("registry",), 1)
MODEL_PINNED = TopicSpec(lifecycle.ModelPinned, ("registry",), ("registry",), 1)
COMMAND_REFUSED = TopicSpec(lifecycle.CommandRefused, ("registry",), ("registry",), 1)
SERVING_DESIRED = TopicSpec(
    lifecycle.ServingDesired,
    ("registry", "cli"),
    ("train", "serve-gateway", "eval", "monitor"),
    cleanup="compact",
    replayed_by=("train", "serve-gateway", "monitor"),
)

INFERENCE_COMPLETED = TopicSpec(
    # The gateway searches it for the completions that feedback is about.
    production.InferenceCompleted,
    ("serve-gateway",),
    ("monitor", "serve-gateway"),
    3,
    retention_ms=30 * DAY_MS,
    replayed_by=("serve-gateway",),
)
DRIFT_DETECTED = TopicSpec(
    # Events of earlier releases contain users' questions, so they are kept no longer than completions.
    production.DriftDetected,
    ("monitor",),
    ("curate", "monitor", "registry"),
    1,
    retention_ms=30 * DAY_MS,
    replayed_by=("monitor", "registry"),
)
ALARM_OPENED = TopicSpec(
    production.AlarmOpened,
    ("monitor",),
    ("curate", "monitor"),
    cleanup="compact",
    replayed_by=("curate", "monitor"),
)
ROLLOUT_JUDGED = TopicSpec(
    production.RolloutJudged, ("monitor",), ("registry", "monitor"), 1, replayed_by=("monitor",)
)

INFERENCE_SCORED = TopicSpec(
    monitoring.InferenceScored, ("monitor",), ("monitor",), 3, retention_ms=30 * DAY_MS
)
DRIFT_RESOLVED = TopicSpec(
    monitoring.DriftResolved, ("monitor",), ("curate", "monitor"), 1, replayed_by=("curate", "monitor")
)
LABELS_REQUESTED = TopicSpec(monitoring.LabelsRequested, ("monitor",), ("curate",), 1)
TURN_DECIDED = TopicSpec(
    monitoring.TurnDecided, ("curate",), ("curate",), cleanup="compact", replayed_by=("curate",)
)
TURN_COMPLETED = TopicSpec(
    monitoring.TurnCompleted, ("monitor",), ("curate", "monitor"), 1, replayed_by=("curate", "monitor")
)

INDEX_VERSIONED = TopicSpec(
    retrieval.IndexVersioned,
    ("index",),
    ("serve-gateway", "eval", "index", "curate"),
    cleanup="compact",
    replayed_by=("serve-gateway", "eval", "index", "curate"),
)

TOPICS: tuple[TopicSpec, ...] = tuple(v for v in list(globals().values()) if isinstance(v, TopicSpec))
COMES_AGAIN = (TICKET_PUBLISHED, DOCUMENT_PUBLISHED, EXAMPLE_PUBLISHED)
"""Topics whose content comes again as ``record.ingested``."""
NOT_SHOWN = (*COMES_AGAIN, INFERENCE_SCORED, ALARM_OPENED)
"""Topics that the console does not read. In place of scores it reads the completions themselves,
and in place of ``alarm.opened`` it reads ``drift.detected``."""
BY_NAME: dict[str, TopicSpec] = {spec.name: spec for spec in TOPICS}
ERASES_LETTERS: Service = "ingest"
"""The service that removes erased messages from all dead-letter topics
(``tunewheel_runtime.erased_letters``)."""
ERASED_LETTERS = tuple(
    spec.dead_letter for spec in TOPICS if spec.dead_letter_exists and not spec.name.startswith("erasure.")
)
"""The dead-letter topics from which erased messages are removed. Requests and proofs of erasures name the
person, and are kept."""
