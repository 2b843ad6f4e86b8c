"""The budget of loss: how much worse than the best champion so far the present one may be.

Models that are each "not worse by the margin" could lose the margin again at every turn. So the differences
that promotions measured since the best champion add up, and so do the squares of their errors. What may be
lost already makes the next margin smaller. ``make bench NAME=wheel_turns`` settled the constants.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunewheel_contracts.formats.scorecard import Gain

Z = 1.28
"""How many standard errors count as lost although they need not be: with 9 of 10, not more is lost."""
BEST_Z = 3.0
"""How many standard errors better a champion must be to become the best one."""
GAINED = 0.5
"""The part of a gain that counts. A trial that ends when a model looks good overstates its gain."""


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
        gained = gain.difference * (GAINED if gain.difference > 0 else 1.0)
        difference, variance = self.difference + gained, self.variance + gain.error**2
        if difference - BEST_Z * variance**0.5 > 0:
            return Account()
        return Account(difference, variance, self.unmeasured)

    @property
    def spent(self) -> float:
        """Return how much of a margin may be lost already: from 0 to 1, as a share of questions."""
        return round(min(1.0, max(0.0, Z * self.variance**0.5 - self.difference)), 6)
