"""Evaluation criteria. They are declared before the training, and are part of the hash of dataset version and
run."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

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
    """

    metric: str
    """Name of a metric. ``tunewheel declare`` refuses a name that eval does not know."""
    minimum: FiniteFloat | None = None
    maximum: FiniteFloat | None = None
    over_base: FiniteFloat | None = None
    over_champion: FiniteFloat | None = None
    significance: Fraction | None = None

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
