"""What curate found when it carried an erasure out, kept in the object store beside the proof."""

from __future__ import annotations

from pydantic import Field

from tunewheel_contracts.fields import Frozen, Sha256, Slug


class ErasureFinding(Frozen):
    """``erasures/<project>/<hash of the request's event id>.json``: names and counts, nobody's words.

    It is written before anything is deleted, so that a repetition says what there was, not what was left.
    """

    records: int = Field(ge=0)
    """Distinct records in the record table."""
    dataset_ids: tuple[Slug, ...] = ()
    """Versions that hold some of them, sorted; also versions that were stored and never published."""
    lessons: tuple[Sha256, ...] = ()
    """Names of what a teacher answered about an erased document, sorted."""
    record_ids: tuple[Slug, ...] = ()
    """The records, in the table or only in a version, sorted; none in findings of earlier releases."""
