"""A passage of an index, and how a question found it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Passage:
    """One row of an index's table of passages."""

    passage_id: str
    document_id: str
    """As its publisher calls the document: the ``source_id`` of its record."""
    record_id: str
    """Which version of the document this is."""
    title: str
    heading: str
    """The path of headings above the passage, joined; empty where there is none."""
    text: str
    tokens: int
    order: int
    """Place among the passages of its document."""

    @property
    def searched(self) -> str:
        """What of the passage is embedded, and searched by words: its place and its text."""
        return "\n".join(part for part in (self.title, self.heading, self.text) if part)


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that a question found; the best comes first."""

    passage: Passage
    score: float
    """By ``fusion.fused``: higher is better, and says nothing across questions."""
    ranks: tuple[int | None, ...] = ()
    """Its place in each ranking that was fused, from 1; None: that ranking does not have it."""
    similarity: float | None = None
    """Cosine of its vector and the question's: it says how well the passage fits. None: the question had no
    vector."""
