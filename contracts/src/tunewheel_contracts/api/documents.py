"""The documents that a project's index holds, and what a question finds in them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import Frozen

Count = Annotated[int, Field(ge=0)]


class IndexedDocument(Frozen):
    """A document of the newest index version."""

    document_id: str
    record_id: str
    """The version of the document: its record."""
    title: str
    trust: str | None = None
    """None, as with ``origin``: an earlier release wrote this part of the index."""
    origin: str | None = None
    """The name of the caller who published it, where a service identified one."""
    allowed_groups: tuple[str, ...] | None = None
    """The groups whose callers get its passages; None: every caller does."""
    passages: Count
    waiting: Count = 0
    """Number of passages that address the model, and that nobody finds until a person releases them."""
    left_out: str | None = None
    """Why it has no passages, as ``index.versioned`` counts it."""
    published_at: datetime | None = None
    index_id: str


class DocumentPassage(Frozen):
    """A passage of a document, in reading order."""

    passage_id: str
    heading: str
    """The headings above it, joined by `` > ``."""
    text: str
    tokens: Count
    order: Count
    evidence: str | None = None
    """The words by which it addresses the model, for a passage that waits; None: it does not wait."""


class DocumentDetail(IndexedDocument):
    """A document with its passages."""

    texts: tuple[DocumentPassage, ...] = ()
    hidden: bool = False
    """Whether the passages are left out, because the caller is in none of ``allowed_groups``."""


class FoundPassage(Frozen):
    """A passage that a question finds, and why."""

    passage_id: str
    document_id: str
    record_id: str
    title: str
    heading: str
    text: str
    tokens: Count
    score: float
    """The score by which it is ranked: reciprocal rank fusion of the two lists."""
    words_rank: int | None
    """Its place among the passages by BM25, from 1; None: it is not among the first ones."""
    words_score: float
    """Its score by BM25."""
    vector_rank: int | None
    """The same by vectors."""
    similarity: float | None
    """The cosine of its vector and the question's; None: the question has no vector."""
    fit: float | None
    """What is compared with the floor; None: the index has no floor."""
    passes: bool
    """Whether the floor lets it pass."""
    sent: bool
    """Whether it stands in the prompt."""
    marks: tuple[tuple[int, int], ...] = ()
    """Where a word of the question begins and ends in ``text``, in characters."""


class PassageSearch(Frozen):
    """What a question finds, the best first."""

    project: str
    question: str
    index_id: str
    passages: tuple[FoundPassage, ...]
    top_k: int
    floor: float | None
    """The ``fit`` above which a passage enters a prompt; None: the spec asks for no floor."""
    budget_tokens: int
    tokens: Count
    """Tokens of the passages that are sent."""
    by_words_alone: str | None
    """Why the question has no vector: ``blank``, ``embedder``, ``refused`` or ``away``; None: it has one."""
    context: str
    """What is added to the system message; "": nothing."""
    milliseconds: float
