"""A project's documents as passages that can be searched: one immutable version, named by its content."""

from __future__ import annotations

import operator
from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import (
    ArtifactRef,
    FiniteFloat,
    Frozen,
    NonNegative,
    PositiveInt,
    Sha256,
    Slug,
)

Count = Annotated[int, Field(ge=0)]


class IndexCounts(Frozen):
    """How many of what a version holds."""

    documents: Count
    """Documents with at least one passage."""
    passages: Count
    tokens: Count
    """Of all passages, estimated."""
    left_out: dict[str, Count] = {}
    """Documents without a passage, by reason: ``empty``, ``pii`` (the policy rejects them),
    ``too_many_passages``, ``refused_by_embedder`` (one of its passages) or ``not_on_the_log``."""


class IndexManifest(Frozen):
    """``indexes/<project>/<index_id>/manifest.json``. ``index_id`` is ``ix-`` and 20 hex digits of the
    SHA-256 of what decides its content: the retrieval spec's part for the index, the policy on personal data,
    the embedding's name, the ids of the documents' records, and which documents were left out for a reason
    that may pass (``too_many_passages``, ``refused_by_embedder``, ``not_on_the_log``). Where on the log it
    was read up to stands in ``index.versioned`` alone: offsets differ between logs that hold the same
    documents."""

    index_id: Slug
    project: Slug
    config_sha256: Sha256
    """Of all that decides the content beside the documents. The next version takes over passages and vectors
    where it is the same."""
    embedding: str
    """Name of the embedder: its kind and what it was made of. A question must be embedded by the same."""
    dimensions: PositiveInt
    passages: ArtifactRef
    """Parquet, one row per passage, by document and reading order: passage_id, document_id, record_id, title,
    heading (the headings above it, joined by `` > ``), text, tokens, order (from 0, in its document)."""
    vectors: ArtifactRef
    """Safetensors: ``vectors`` (passages, dimensions), float16 or float32, unit length; row i is of
    passage i."""
    lexical: tuple[ArtifactRef, ...]
    """What the search by words reads."""
    documents: ArtifactRef
    """Parquet, one row per document: document_id, record_id, title, published_at, passages, left_out
    (why it has none)."""
    counts: IndexCounts


class RetrievalUse(Frozen):
    """What the gateway retrieved for one request."""

    index_id: Slug
    passage_ids: Annotated[tuple[Slug, ...], Field(max_length=32)] = ()
    """Those that stood in the prompt, best first."""
    scores: Annotated[tuple[FiniteFloat, ...], Field(max_length=32)] = ()
    """By which they were ranked, in the order of ``passage_ids``."""
    milliseconds: NonNegative = 0.0
    """From the question to the passages."""
    similarity: Annotated[FiniteFloat | None, Field(exclude_if=lambda cosine: cosine is None)] = None
    """How well the passage fits that fits best: the cosine of its vector and the question's. ``scores`` say
    nothing of that. 0: no passage was found. None: the question had no vector, or the index was still the
    one of an earlier retrieval spec."""
    retrieval_sha256: Annotated[Sha256 | None, Field(exclude_if=operator.not_)] = None
    """Of the retrieval spec that the passages were looked up by: similarities of two specs cannot be
    compared."""
