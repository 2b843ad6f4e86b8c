"""A passage of an index, and its scores for a question."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Passage:
    """One row of an index's table of passages."""

    passage_id: str
    document_id: str
    """The publisher's id of the document: the ``source_id`` of its record."""
    record_id: str
    """The id of the record: one version of the document."""
    title: str
    heading: str
    """The headings above the passage, joined; empty if there is none."""
    text: str
    tokens: int
    order: int
    """The passage's position in its document."""

    @property
    def searched(self) -> str:
        """The text that is embedded and searched by words: title, heading and passage."""
        return "\n".join(part for part in (self.title, self.heading, self.text) if part)


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that a question found; the best comes first."""

    passage: Passage
    score: float
    """The score of ``fusion.fused``: higher is better. Scores of different questions cannot be compared."""
    ranks: tuple[int | None, ...] = ()
    """The passage's place in each fused ranking, from 1. None: that ranking does not have the passage."""
    similarity: float | None = None
    """The cosine of the passage's and the question's vectors: how well the passage fits. None: the question
    had no vector."""
    fit: float = 0.0
    """The cosine (0 without a vector) plus the share of the question's words, by their idf, that the passage
    has: from 0 to 2 for most texts. Unlike ``score`` it can be compared with a bound."""
    words: float = 0.0
    """The score by BM25; 0: it has no word of the question."""
