"""What the index produces: versions of what can be retrieved from a project's documents."""

from __future__ import annotations

from typing import ClassVar

from tunewheel_contracts.event import Event
from tunewheel_contracts.fields import ArtifactRef, Sha256, Slug
from tunewheel_contracts.formats.dataset import RecordsUpto
from tunewheel_contracts.formats.index import Count, IndexCounts


class IndexVersioned(Event):
    """The newest index version of a project: gateways search it from here on."""

    type: ClassVar[str] = "index.versioned"
    subject_field: ClassVar[str] = "project"
    identity_fields: ClassVar[tuple[str, ...]] = ("index_id", "previous")

    project: Slug
    index_id: Slug
    manifest: ArtifactRef
    """JSON of ``IndexManifest``."""
    retrieval_sha256: Sha256
    """Of the retrieval spec that it is for."""
    counts: IndexCounts
    changed: Count = 0
    """Documents that are new, other or gone since ``previous``, or have passages in one of the two alone."""
    previous: Slug | None = None
    """The project's version before this one."""
    versions: ArtifactRef
    """Parquet, one row per version of a document that is known: document_id, record_id, group, published_at,
    occurred_at. With the positions below, the next build goes on from here."""
    records_upto: RecordsUpto
    """Partition of ``record.ingested`` → the offset before which all documents are known."""
    withdrawals_upto: RecordsUpto
    """The same of ``document.withdrawn``."""
    erasures_upto: RecordsUpto
    """The same of ``erasure.requested``."""
