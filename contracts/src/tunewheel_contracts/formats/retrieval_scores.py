"""What a scorecard says of retrieval: how well it finds, and what passages do to base and tuned model."""

from __future__ import annotations

import operator
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from tunewheel_contracts.fields import FiniteFloat, Fraction, Frozen, Sha256, Slug


class Cell(StrEnum):
    """One of two models, asked with passages or without."""

    BASE = "base"
    BASE_WITH_PASSAGES = "base_with_passages"
    TUNED = "tuned"
    TUNED_WITH_PASSAGES = "tuned_with_passages"

    @property
    def has_passages(self) -> bool:
        return self in (Cell.BASE_WITH_PASSAGES, Cell.TUNED_WITH_PASSAGES)

    @property
    def is_tuned(self) -> bool:
        return self in (Cell.TUNED, Cell.TUNED_WITH_PASSAGES)


class Ranking(Frozen):
    """How well the index finds the document that a question is answered by, over the held-out questions of
    which that document is known."""

    questions: int
    top_k: int
    """``k`` of ``recall_at_k`` and of ``ndcg``: the passages that a prompt may be given."""
    figures: dict[str, FiniteFloat]
    """``recall_at_k``, ``mrr`` and ``ndcg``."""
    low: dict[str, FiniteFloat]
    high: dict[str, FiniteFloat]
    """Ends of each figure's interval, one-sided at .05 each."""


class CellScores(Frozen):
    cell: Cell
    serves: Annotated[bool, Field(exclude_if=operator.not_)] = False
    """A request that does not say is answered like this by the tuned model, once it serves."""
    figures: dict[str, FiniteFloat]
    """By metric name, over the rows that all cells were asked."""
    stale: FiniteFloat | None = None
    """Share of answers that say what only the old version of a changed document says; see ``Staleness``."""
    current: FiniteFloat | None = None
    """Share of answers that say what only its new version says."""


class CellDifference(Frozen):
    """Two cells on one metric, paired by question."""

    metric: str
    cell: Cell
    against: Cell
    test: str
    difference: FiniteFloat
    """``cell`` minus ``against``, in the metric's unit."""
    p_value: Fraction
    """One-sided: the probability of so large an advantage of ``cell`` if there were none."""
    low: FiniteFloat
    high: FiniteFloat
    """Interval of ``difference``: each end holds with probability 1 - ``alpha``."""
    alpha: Fraction
    rows: int
    clusters: int


class Staleness(Frozen):
    """What became of the documents that answers were written by. An answer is stale that holds a number, a
    name or an identifier which stands in the old passage, and neither in the new version of its document nor
    in the question."""

    before: Slug
    """The index version that held the old documents."""
    documents: int
    """Documents that the later version holds in another version, or not at all."""
    questions: int
    """Held-out questions that such a document answers, among those that all cells were asked."""
    telling: int
    """Of these, the ones whose old passage holds such a number, name or identifier: shares are over them."""


class AdviceCheck(Frozen):
    """Whether what the spec follows of ``tunewheel plan``'s advice was right."""

    approach: str
    """``rag``, ``fine-tuning`` or ``hybrid``."""
    outcome: Literal["right", "undecided", "wrong"]
    reason: str


class RetrievalScores(Frozen):
    """Of a run whose project retrieves, judged while there was an index."""

    index_id: Slug
    retrieval_sha256: Sha256
    """Of the retrieval spec by which passages were looked up."""
    with_passages: bool
    """Whether the prompts that the verdict rests on had passages."""
    reason: str | None = None
    """Why the cells were not compared."""
    ranking: Ranking | None = None
    rows: int = 0
    """Held-out questions that all four cells were asked."""
    metric: str | None = None
    """By which the cells are compared with each other: the first criterion's that asks for an advantage."""
    cells: tuple[CellScores, ...] = ()
    differences: tuple[CellDifference, ...] = ()
    """By ``metric`` each cell against each; by the others each model with passages against itself without."""
    best: tuple[Cell, ...] = ()
    """Those that no other is shown to be better than, by ``metric``."""
    advice: AdviceCheck | None = None
    staleness: Staleness | None = None
