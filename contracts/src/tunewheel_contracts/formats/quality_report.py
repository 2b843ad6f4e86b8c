"""What curation found wrong, beside what it dropped: for people to decide."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import ArtifactRef, Frozen, Sha256

Count = Annotated[int, Field(ge=0)]


class BenchmarkOverlap(Frozen):
    """How far examples overlap one benchmark, or the project's own "held-out questions": those that stand in
    a conversation or a passage which would have trained. Items and examples are counted once each."""

    benchmark: str
    sha256: Sha256
    """Of the benchmark's texts, as canonical JSON."""
    items: Count
    overlapping_items: Count
    dropped: Count = 0
    """Examples that would have trained."""
    train: Count = 0
    """Overlapping examples that train, where the project only reports."""
    holdout: Count = 0


class SemanticReport(Frozen):
    """Inputs alike in meaning, by static embeddings, that are no near-duplicates by their words."""

    threshold: float
    pairs: Count
    clusters: Count
    examples: Count
    """Examples in those clusters."""
    dropped: Count = 0


class QualityReport(Frozen):
    review: ArtifactRef | None = None
    """Parquet: who labelled what when, where experts contradict each other, labels are not in the schema or a
    classifier doubts one. None where there is nothing to look at."""
    review_counts: dict[str, Count] = {}
    """Records to look at, by kind: conflict, near_conflict, off_schema, suspect."""
    contamination: tuple[BenchmarkOverlap, ...] = ()
    """By benchmark, documents included; the held-out questions last."""
    semantic: SemanticReport | None = None
    """None where the project does not ask."""
