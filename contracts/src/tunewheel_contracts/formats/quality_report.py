"""The quality report of a dataset version: problems that curation found, for people to decide about."""

from __future__ import annotations

import operator
from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import ArtifactRef, Frozen, Sha256

Count = Annotated[int, Field(ge=0)]


class BenchmarkOverlap(Frozen):
    """How far examples overlap one benchmark, or the project's own "held-out questions". The latter are
    held-out questions that occur in a training conversation or passage. Each item and each example is counted
    once."""

    benchmark: str
    sha256: Sha256
    """Hash of the benchmark's texts as canonical JSON."""
    items: Count
    overlapping_items: Count
    dropped: Count = 0
    """Number of overlapping examples that were dropped from the training data."""
    train: Count = 0
    """Number of overlapping examples in the training data, if the project only reports them."""
    holdout: Count = 0


class SemanticReport(Frozen):
    """Inputs with similar meaning, by static embeddings, that are not near-duplicates by their words."""

    threshold: float
    pairs: Count
    clusters: Count
    examples: Count
    """Number of examples in those clusters."""
    dropped: Count = 0


class QualityReport(Frozen):
    review: ArtifactRef | None = None
    """Parquet with labels to check, and who gave them when: experts contradict each other, a label is not in
    the schema, or a classifier predicts another one. Null: there is nothing to check."""
    review_counts: dict[str, Count] = {}
    """Number of records to check, by kind: conflict, near_conflict, off_schema, suspect."""
    quarantined: Annotated[dict[str, Count], Field(exclude_if=operator.not_)] = {}
    """Number of records that wait in quarantine, by reason: flood, takeover, conflict, injection,
    correction."""
    contamination: tuple[BenchmarkOverlap, ...] = ()
    """Overlap with each benchmark, documents included; the held-out questions are last."""
    semantic: SemanticReport | None = None
    """Null: the project does not ask for it."""
