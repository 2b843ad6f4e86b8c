"""The budget of loss: how much worse than the best champion so far the present one may be.

Models that are each "not worse by the margin" could lose the margin again at every turn. So the differences
that promotions measured since the best champion add up, and so do the squares of their errors. What may be
lost already makes the next margin smaller.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunewheel_contracts.formats.scorecard import Gain

Z = 1.0
"""How many standard errors count as lost although they need not be."""


@dataclass(frozen=True, slots=True)
class Account:
    """A champion's difference from the best champion so far, as a share of questions."""

    difference: float = 0.0
    variance: float = 0.0
    unmeasured: int = 0
    """Number of champions since the best one whose difference was not measured, for example because a person
    promoted them. The sums leave them out."""

    def after(self, gain: Gain | None) -> Account:
        """Return the account of the model that takes over from this account's champion with ``gain``. A model
        that is shown to be better than the best champion is the best champion."""
        if gain is None:
            return Account(self.difference, self.variance, self.unmeasured + 1)
        difference, variance = self.difference + gain.difference, self.variance + gain.error**2
        if difference - Z * variance**0.5 > 0:
            return Account()
        return Account(difference, variance, self.unmeasured)

    @property
    def spent(self) -> float:
        """Return how much of a margin may be lost already: from 0 to 1, as a share of questions."""
        return round(min(1.0, max(0.0, Z * self.variance**0.5 - self.difference)), 6)
