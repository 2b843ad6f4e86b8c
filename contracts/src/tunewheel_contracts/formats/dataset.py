"""A dataset version: examples in Parquet, a manifest that names them by content."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunewheel_contracts.fields import ArtifactRef, Frozen, Sha256, Slug, Text
from tunewheel_contracts.formats.spec import ProjectSpec


class ChatMessage(Frozen):
    role: Literal["system", "user", "assistant"]
    content: Text


class ChatExample(Frozen):
    """One row of ``train.parquet`` or ``holdout.parquet``; columns bear these names.

    ``messages`` is stored as a list of structs {role, content}; ``record_ids`` name the source records.
    """

    example_id: str
    messages: tuple[ChatMessage, ...]
    label: str | None = None
    group: str
    """Examples of one group never straddle train and holdout."""
    trust: str
    record_ids: tuple[str, ...]


class FunnelStage(Frozen):
    """One stage of curation: what came in, what went out, and why the rest did not."""

    stage: str
    entered: Annotated[int, Field(ge=0)]
    left: Annotated[int, Field(ge=0)]
    reasons: dict[str, int] = {}


class DatasetCounts(Frozen):
    records: int
    examples: int
    train: int
    holdout: int


class DatasetManifest(Frozen):
    """``datasets/<dataset_id>/manifest.json``. ``dataset_id`` is ``ds-`` and 20 hex digits of the SHA-256
    of the spec's hash and the canonical rows of both splits."""

    dataset_id: Slug
    project: Slug
    spec: ProjectSpec
    spec_sha256: Sha256
    criteria_sha256: Sha256
    rows_sha256: Sha256
    train: ArtifactRef
    holdout: ArtifactRef
    card: ArtifactRef | None = None
    lineage: ArtifactRef | None = None
    """Parquet: record_id, source_event_id, source_id, kind, example_id or the stage that dropped it."""
    data_docs: str | None = None
    counts: DatasetCounts
    funnel: tuple[FunnelStage, ...]
    versions: dict[str, str] = {}
