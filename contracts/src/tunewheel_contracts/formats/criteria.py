"""Evaluation criteria. They are declared before the training, and are part of the hash of dataset version and
run."""

from __future__ import annotations

import operator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tunewheel_contracts.errors import inconsistent
from tunewheel_contracts.fields import FiniteFloat, Fraction, Strict

LOOKS = 10
"""Most verdicts for which a held-out row is used, unless ``evaluation.looks`` says otherwise. Each verdict
uses the significance divided by it."""


class Criterion(Strict):
    """One condition on the candidate. All of its bounds must hold.

    Bounds against the base and the champion are in the metric's unit, and larger is better for the candidate:
    ``over_base=0.2`` requires at least 0.2 more accuracy (or 0.2 less perplexity). A bound is met if the
    whole interval of the figure, or of the difference, is beyond it. So 0 requires a better model, and a
    negative bound a model that is not worse by that much.

    ``significance`` is the one-sided alpha of these intervals, at most .5 (default .05). Without another
    bound it requires any advantage over the champion, or over the base if there is no champion. Verdicts on
    held-out rows use a tenth of it (``evaluation.looks``), so that ten versions may be judged by the same
    rows.

    With ``label``, or ``labels: each`` for all labels at once, the criterion is about held-out rows of that
    label, and takes ``over_champion`` alone: ``over_champion=-0.1`` fails a candidate that is shown to lose
    more than 0.1 there. A loss that is not shown fails nothing, because a label has few rows.
    """

    metric: str
    """Name of a metric. ``tunewheel project declare`` refuses a name that eval does not know."""
    minimum: FiniteFloat | None = None
    maximum: FiniteFloat | None = None
    over_base: FiniteFloat | None = None
    over_champion: FiniteFloat | None = None
    significance: Fraction | None = None
    label: Annotated[str | None, Field(min_length=1, exclude_if=operator.not_)] = None
    """Judge held-out rows of this label alone, by ``over_champion``."""
    labels: Annotated[Literal["each"] | None, Field(exclude_if=operator.not_)] = None
    """``each``: judge the rows of every label by itself; one shown loss fails the criterion."""

    @property
    def by_label(self) -> bool:
        return self.label is not None or self.labels is not None

    @property
    def title(self) -> str:
        """The metric, and the label that it is about."""
        part = "each label" if self.labels else self.label
        return self.metric if part is None else f"{self.metric} of {part}"

    @model_validator(mode="after")
    def _labels_are_compared(self) -> Self:
        if self.label is not None and self.labels is not None:
            raise inconsistent("labels", "is given beside label; give one of the two")
        others = (self.minimum, self.maximum, self.over_base)
        if self.by_label and (self.over_champion is None or any(bound is not None for bound in others)):
            name = "label" if self.label is not None else "labels"
            raise inconsistent(name, "goes with over_champion, and with no other bound; give it alone")
        return self

    @model_validator(mode="after")
    def _states_something(self) -> Self:
        bounds = (self.minimum, self.maximum, self.over_base, self.over_champion, self.significance)
        if all(bound is None for bound in bounds):
            raise ValueError(
                "has no bound; give at least one of minimum, maximum, over_base, over_champion, significance"
            )
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise inconsistent(
                "minimum", f"{self.minimum} contradicts maximum {self.maximum}, which is smaller; swap them"
            )
        return self
