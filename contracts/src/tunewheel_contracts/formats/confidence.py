"""How sure a model is of its answers, and how often it is then right."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import FiniteFloat, Frozen, NonNegative, PositiveInt

LogProbability = Annotated[FiniteFloat, Field(le=0)]
"""Natural logarithm of a probability by the model alone: before temperature, penalties and constraints."""


class Confidence(Frozen):
    """The log-probabilities of an answer's tokens in figures, without texts."""

    tokens: PositiveInt
    """The number of tokens, without the end token."""
    total: LogProbability
    """Of the whole answer: the sum over its tokens."""
    least: LogProbability
    """Of the least probable token."""
    label: Annotated[LogProbability | None, Field(exclude_if=lambda found: found is None)] = None
    """Of the tokens of the answer's label. None: the task has no labels, or the answer has none."""


class Calibration(Frozen):
    """How often a label is right of which the model's own probability is p: with the probability
    1 / (1 + exp(-intercept - slope * logit(p))) (Platt, "Probabilistic outputs for support vector machines",
    1999). Fitted to held-out rows."""

    rows: PositiveInt
    intercept: FiniteFloat
    slope: FiniteFloat
    covariance: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    """Of the estimates: the intercept's variance, their covariance, the slope's variance."""
    spread: NonNegative
    """By how much the accuracy differs between labels of which the model is equally sure: a standard
    deviation."""
