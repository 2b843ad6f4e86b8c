"""A search index of a project's documents: one immutable version, whose id is a hash of its content."""

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
    SourceId,
    Text,
)

Count = Annotated[int, Field(ge=0)]


class IndexCounts(Frozen):
    """Counts of an index version."""

    documents: Count
    """Number of documents with at least one passage."""
    passages: Count
    tokens: Count
    """Estimated tokens of all passages."""
    left_out: dict[str, Count] = {}
    """Number of documents without a passage, by reason: ``empty``, ``pii`` (rejected by the policy),
    ``too_many_passages``, ``refused_by_embedder`` (for one of its passages), ``not_on_the_log`` or
    ``injection`` (all of its passages wait)."""
    waiting: Annotated[Count, Field(exclude_if=operator.not_)] = 0
    """Number of passages that address the model (prompt injection), and that nobody finds until a person
    released their document."""


class Floors(Frozen):
    """How well a passage must fit a question: as well as the best passage of this index fits nine of ten
    prompts that have nothing to do with its documents. See ``Hit.fit`` for the measure."""

    with_vector: FiniteFloat
    """For a question that has a vector."""
    by_words: FiniteFloat
    """For a question that is searched by words alone."""


class InjectedPassage(Frozen):
    """A passage that addresses the model. The first eight fields are the columns of the table of passages."""

    passage_id: Slug
    document_id: SourceId
    record_id: Slug
    title: Text
    heading: Text
    text: Text
    tokens: Count
    order: Count
    evidence: Text
    """The words by which it addresses the model."""
    trust: str
    """The trust of its record."""
    origin: str = ""
    """The name of the caller who published it, where a service identified one."""
    released: bool = False
    """Whether a person released its document. If so, the passage is in the table of passages too."""


class InjectedPassages(Frozen):
    """The file ``injections`` of an index version, in JSON: sorted as the table of passages is."""

    passages: tuple[InjectedPassage, ...] = ()


class IndexManifest(Frozen):
    """``indexes/<project>/<index_id>/manifest.json``. ``index_id`` is ``ix-`` and 20 hex digits of a SHA-256.
    The hash covers all that decides the content: the part of the retrieval spec for the index, the policy on
    personal data, the embedder's name, the ids of the documents' records, and the documents that were left
    out for a temporary reason (``too_many_passages``, ``refused_by_embedder``, ``not_on_the_log``), and the
    records whose passages address the model and were released by a person. The
    offsets on the log are only in ``index.versioned``, because they differ between logs with the same
    documents."""

    index_id: Slug
    project: Slug
    config_sha256: Sha256
    """Hash of all that decides the content except the documents. If it is unchanged, the next version reuses
    passages and vectors."""
    embedding: str
    """Name of the embedder: its kind and its model. Questions must be embedded by the same embedder."""
    dimensions: PositiveInt
    passages: ArtifactRef
    """Parquet, one row per passage, sorted by document and reading order: passage_id, document_id, record_id,
    title, heading (the headings above it, joined by `` > ``), text, tokens, order (from 0, within the
    document)."""
    vectors: ArtifactRef
    """Safetensors: ``vectors`` of shape (passages, dimensions), float16 or float32, of unit length. Row i
    belongs to passage i."""
    lexical: tuple[ArtifactRef, ...]
    """Files of the lexical search. Where not every caller may see every document, the table of documents
    stands here too: earlier releases, which know no groups, refuse such a version."""
    documents: ArtifactRef
    """Parquet, one row per document: document_id, record_id, title, published_at, passages, left_out (the
    reason why it has no passages), trust and origin (who published it; null: an earlier release indexed
    it)."""
    counts: IndexCounts
    floors: Annotated[Floors | None, Field(exclude_if=lambda floors: floors is None)] = None
    """Null: the spec asks for no floor."""
    injections: Annotated[ArtifactRef | None, Field(exclude_if=lambda ref: ref is None)] = None
    """JSON of ``InjectedPassages``. Null: no passage addresses the model, or ``dataset.injections`` is
    ``keep``."""


class RetrievalUse(Frozen):
    """The passages that the gateway retrieved for one request."""

    index_id: Slug
    passage_ids: Annotated[tuple[Slug, ...], Field(max_length=32)] = ()
    """The passages in the prompt, best first."""
    scores: Annotated[tuple[FiniteFloat, ...], Field(max_length=32)] = ()
    """Their ranking scores, in the order of ``passage_ids``."""
    milliseconds: NonNegative = 0.0
    """Time that the retrieval took."""
    similarity: Annotated[FiniteFloat | None, Field(exclude_if=lambda cosine: cosine is None)] = None
    """How well the best passage fits: the cosine of its vector and the question's. ``scores`` do not show
    that. 0: no passage was found. Null: the question had no vector, or the index was built for an earlier
    retrieval spec."""
    retrieval_sha256: Annotated[Sha256 | None, Field(exclude_if=operator.not_)] = None
    """Hash of the retrieval spec that was used. Similarities under different specs cannot be compared."""
