"""How sure a model is of its answers, and how often answers of which it was so sure are right."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import FiniteFloat, Fraction, Frozen, PositiveInt

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

    @property
    def mean(self) -> float:
        """The mean over the tokens."""
        return self.total / self.tokens


class CalibrationBin(Frozen):
    """Held-out answers of which the model was about equally sure."""

    confidence: Fraction
    """The mean probability of their labels."""
    rows: PositiveInt
    right: Annotated[int, Field(ge=0)]
    """How many of their labels are right."""
