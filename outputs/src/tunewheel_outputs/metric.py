"""The definition of a metric. Each metric is in its own file in ``metrics/``. Whoever changes what a metric
gives increases ``SCORING`` (``tunewheel_contracts.formats.scorecard``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from tunewheel_contracts.formats.spec import TaskSpec


class Score(NamedTuple):
    value: float
    weight: float = 1.0
    """For a ``ratio``: the sum of values is divided by the sum of weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One item, and one contestant's result on it. All texts can be encoded as UTF-8; see ``readable``."""

    output: str
    asked: str = ""
    """The conversation before the answer, without the system prompt, as one text."""
    system: str = ""
    expected: str = ""
    """The expert's answer."""
    nll: float = 0.0
    """Negative log-likelihood of the expert's answer, in nats, summed over ``tokens``."""
    tokens: int = 1
    correct: bool = False
    """For an item of the regression set: whether the answer is right."""
    scores: Mapping[str, Score] = field(default_factory=dict)
    """For a question of lm-eval: lm-eval's scores of the answer, by metric name."""
    passages: tuple[str, ...] = ()
    """Passages of the project's documents in the prompt."""
    rank: int | None = None
    """For a question whose document is known: rank of the document's first passage in the index's result,
    from 1; None: it was not found."""
    top_k: int = 0
    """With ``rank``: most passages in a prompt."""


ScoreRow = Callable[[Row], Score | float | None]
"""Scores one row, whatever its output. Returns None if the metric does not apply to the row's expected answer
or passages."""
Corpus = frozenset[str]
"""The terms of the training rows (``tunewheel_outputs.terms``), for metrics that need them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """How a figure of a contestant is computed, and how two contestants are compared by it."""

    name: str
    about: str
    """A description in one sentence, for people."""
    unit: str
    scorer: Callable[[TaskSpec, Corpus], ScoreRow]
    """Returns the function that scores the rows of one task. Only called if ``lacks`` returns None for the
    task."""
    lower_is_better: bool = False
    lowest: float = 0.0
    highest: float | None = 1.0
    """Smallest and largest possible figure; None: there is no largest."""
    on: str = "holdout"
    """The rows on which it is measured: ``holdout``, ``regression``, ``lm_eval.<task>`` or ``retrieval``. The
    last are held-out questions whose document is known; their figures are the same for all models."""
    test: Literal["proportion", "mean", "ratio"] = "mean"
    """``proportion``: each row scores 0 or 1. ``mean``: each row scores from 0 to 1. ``ratio``: exp of the
    sum of the values divided by the sum of the weights, as for perplexity."""
    lacks: Callable[[TaskSpec], str | None] = lambda task: None
    """Returns the field of ``task`` that the metric needs and that is missing; None: nothing is missing."""
    needs_corpus: bool = False
    """True: it reads every training row, so it is measured only if a criterion names it."""
    needs_passages: bool = False
    """True: it does not apply to answers to prompts without passages."""
    ignores_text: bool = False
    """True: where the task's answers are JSON, an answer that is not JSON scores the same whatever its
    text."""
    per_token: bool = False
    """True: the weights are tokens. Contestants with different tokenizers are compared per token of the
    candidate's tokenizer. ``perplexity_per_character`` can be compared directly."""
