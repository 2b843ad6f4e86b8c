"""Events of the index service: versions of the search index of a project's documents."""

from __future__ import annotations

from typing import ClassVar

from tunewheel_contracts.event import Event
from tunewheel_contracts.fields import ArtifactRef, Sha256, Slug
from tunewheel_contracts.formats.dataset import RecordsUpto
from tunewheel_contracts.formats.index import Count, IndexCounts
from tunewheel_contracts.topic import TopicSpec


class IndexVersioned(Event):
    """A new index version of a project. Gateways search it from now on."""

    type: ClassVar[str] = "index.versioned"
    subject_field: ClassVar[str] = "project"
    identity_fields: ClassVar[tuple[str, ...]] = ("index_id", "previous")

    project: Slug
    index_id: Slug
    manifest: ArtifactRef
    """JSON of ``IndexManifest``."""
    retrieval_sha256: Sha256
    """Hash of the retrieval spec for which the index was built."""
    counts: IndexCounts
    changed: Count = 0
    """Number of documents that were added, changed or removed since ``previous``, or of which the two
    versions have not equally many passages."""
    previous: Slug | None = None
    """The project's previous index version."""
    versions: ArtifactRef
    """Parquet, one row per known version of a document: document_id, record_id, group, published_at,
    occurred_at. The next build continues from this file and the offsets below."""
    records_upto: RecordsUpto
    """Offsets by partition of ``record.ingested``: all records before them are included."""
    withdrawals_upto: RecordsUpto
    """The same for ``document.withdrawn``."""
    erasures_upto: RecordsUpto
    """The same for ``erasure.requested``."""


INDEX_VERSIONED = TopicSpec(
    IndexVersioned,
    ("index",),
    ("serve-gateway", "eval", "index", "curate"),
    cleanup="compact",
    replayed_by=("serve-gateway", "eval", "index", "curate"),
)
