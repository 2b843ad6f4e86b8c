"""Curate's finding about an erasure, which is stored in the object store in addition to the proof."""

from __future__ import annotations

from pydantic import Field

from tunewheel_contracts.fields import Frozen, Sha256, Slug


class ErasureFinding(Frozen):
    """``erasures/<project>/<hash of the request's event id>.json``: ids and counts, without texts.

    It is written before anything is deleted, so that a repeated erasure reports the original data.
    """

    records: int = Field(ge=0)
    """Number of distinct erased records in the record table."""
    dataset_ids: tuple[Slug, ...] = ()
    """Dataset versions that contain some of them, sorted, including versions that were stored but never
    published, and versions whose rows are damaged, which may contain some."""
    lessons: tuple[Sha256, ...] = ()
    """Hashes of a teacher's answers about erased documents, sorted."""
    record_ids: tuple[Slug, ...] = ()
    """Ids of the erased records, in the table or only in a version, sorted. Empty in findings of earlier
    releases."""
