"""What a metric is. Each stands in a file of its own, in ``metrics/``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from tunewheel_contracts.formats.spec import TaskSpec


class Score(NamedTuple):
    value: float
    weight: float = 1.0
    """Of a ``ratio``: what the value is divided by, summed over rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One item, and what one contestant made of it. All texts can be written as UTF-8: see ``readable``."""

    output: str
    asked: str = ""
    """All that was said before the answer, without the system prompt, as one text."""
    system: str = ""
    expected: str = ""
    """The expert's answer."""
    nll: float = 0.0
    """Negative log-likelihood of the expert's answer, in nats, summed over ``tokens``."""
    tokens: int = 1
    correct: bool = False
    """Of an item of the regression set: whether it was answered right."""
    scores: Mapping[str, Score] = field(default_factory=dict)
    """Of a question of lm-eval: what lm-eval made of the answer, by the metric's name."""
    passages: tuple[str, ...] = ()
    """Texts that stood in the prompt, out of the project's documents."""
    rank: int | None = None
    """Of a question whose document is known: the place of its first passage in the index's ranking, from 1;
    None: it was not found."""
    top_k: int = 0
    """With ``rank``: how many passages a prompt may be given."""


ScoreRow = Callable[[Row], Score | float | None]
"""Scores one row, whatever its output; None where the metric says nothing about rows with such an expert's
answer, or with such passages."""
Corpus = frozenset[str]
"""The terms of the training rows (``tunewheel_outputs.terms``), for what has to know them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """How one figure of a contestant comes about, and how two contestants are compared by it."""

    name: str
    about: str
    """One sentence for people."""
    unit: str
    scorer: Callable[[TaskSpec, Corpus], ScoreRow]
    """Prepares for one task; only called where ``lacks`` says that the task has what it needs."""
    lower_is_better: bool = False
    lowest: float = 0.0
    highest: float | None = 1.0
    """Smallest and largest possible figure; None: there is no largest."""
    on: str = "holdout"
    """The rows that it is about: ``holdout``, ``regression``, ``lm_eval.<task>``, or ``retrieval``: held-out
    questions whose document is known, which are the same whoever answers."""
    test: Literal["proportion", "mean", "ratio"] = "mean"
    """``proportion``: each row is 0 or 1. ``mean``: from 0 to 1. ``ratio``: exp of the sum of the values over
    the sum of the weights, as perplexity is."""
    lacks: Callable[[TaskSpec], str | None] = lambda task: None
    """Returns the field of ``task`` that is missing for it; None where all is there."""
    needs_corpus: bool = False
    """True: it costs a look at every training row, and is measured only where a criterion names it."""
    needs_passages: bool = False
    """True: it says nothing about answers to prompts without passages."""
    per_token: bool = False
    """True: the weights are tokens. Contestants whose tokenizers differ are compared per token of the
    candidate's; see ``perplexity_per_character`` for figures that are comparable as they stand."""
