"""The part of a scorecard about retrieval: its quality, and the effect of passages on the base and the tuned
model."""

from __future__ import annotations

import operator
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from tunewheel_contracts.fields import FiniteFloat, Fraction, Frozen, Sha256, Slug


class Cell(StrEnum):
    """One of four combinations: base or tuned model, with or without passages."""

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
    """How well the index finds the document that answers a question, over the held-out questions for which
    that document is known."""

    questions: int
    top_k: int
    """``k`` in ``recall_at_k`` and ``ndcg``: most passages in a prompt."""
    figures: dict[str, FiniteFloat]
    """``recall_at_k``, ``mrr`` and ``ndcg``."""
    low: dict[str, FiniteFloat]
    high: dict[str, FiniteFloat]
    """Ends of each figure's interval; each end is one-sided with alpha .05."""


class CellScores(Frozen):
    cell: Cell
    serves: Annotated[bool, Field(exclude_if=operator.not_)] = False
    """Whether requests are answered in this way by default, once the tuned model is served."""
    figures: dict[str, FiniteFloat]
    """Figures by metric name, over the rows that were asked in all cells."""
    stale: FiniteFloat | None = None
    """Share of answers with content that is only in the old version of a changed document; see
    ``Staleness``."""
    current: FiniteFloat | None = None
    """Share of answers with content that is only in the new version."""


class CellDifference(Frozen):
    """The difference of two cells on one metric, paired by question."""

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
    """Effect of documents that changed after the training data was made. An answer is stale if it contains a
    number, name or identifier that is in the old passage, but neither in the new version of the document nor
    in the question."""

    before: Slug
    """The index version with the old documents."""
    documents: int
    """Number of documents that were changed or removed in the later index version."""
    questions: int
    """Number of held-out questions, among those asked in all cells, that such a document answers."""
    telling: int
    """Number of those questions whose old passage has such a number, name or identifier. Shares are over
    these."""


class AdviceCheck(Frozen):
    """Whether the advice of ``tunewheel plan``, as far as the spec follows it, was right."""

    approach: str
    """``rag``, ``fine-tuning`` or ``hybrid``."""
    outcome: Literal["right", "undecided", "wrong"]
    reason: str


class RetrievalScores(Frozen):
    """Results for a run of a project with retrieval that was evaluated while there was an index."""

    index_id: Slug
    retrieval_sha256: Sha256
    """Hash of the retrieval spec that was used."""
    with_passages: bool
    """Whether the prompts behind the verdict had passages."""
    reason: str | None = None
    """Why the cells were not compared."""
    ranking: Ranking | None = None
    rows: int = 0
    """Number of held-out questions that were asked in all four cells."""
    metric: str | None = None
    """The metric by which cells are compared: that of the first criterion that requires an advantage."""
    cells: tuple[CellScores, ...] = ()
    differences: tuple[CellDifference, ...] = ()
    """For ``metric``: each cell against each other. For other metrics: each model with passages against the
    same model without."""
    best: tuple[Cell, ...] = ()
    """The cells that no other cell is shown to exceed in ``metric``."""
    advice: AdviceCheck | None = None
    staleness: Staleness | None = None
