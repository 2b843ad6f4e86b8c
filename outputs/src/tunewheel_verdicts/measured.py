"""One metric, measured for all contestants on the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from tunewheel_contracts.formats.criteria import LOOKS, Criterion
from tunewheel_contracts.formats.scorecard import MetricFacts, Role
from tunewheel_outputs.criteria import level_of

from tunewheel_verdicts.sign_flips import DRAWS
from tunewheel_verdicts.significance import (
    Advantage,
    Clusters,
    Interval,
    Scores,
    Test,
    compare,
    figure_interval,
)

SLACK = 1e-9
"""Tolerance for rounding: an interval that ends at the bound must not miss it by the last bits."""


@dataclass(frozen=True)
class Measured:
    """One metric, measured for all contestants on the same rows."""

    name: str
    test: Test
    lower_is_better: bool
    lowest: float
    highest: float
    """The range of the figure; may be infinite."""
    on: str
    """``holdout``, ``regression``, or ``lm_eval.<task>``."""
    scores: Mapping[Role, Scores]
    clusters: Clusters
    unit: str = "fraction"
    repeat_spread: float = 0.0
    """How much two measurements of one model differ. No smaller difference is claimed."""
    looks: int = LOOKS
    """The number of verdicts that share the significance of held-out rows."""
    labels: tuple[str | None, ...] = ()
    """The label of each row; empty: the rows have none."""
    flips: int = DRAWS
    """How many choices of signs a comparison of scores tries."""
    _compared: dict[tuple[Role, float, int], Advantage] = field(
        default_factory=dict[tuple[Role, float, int], Advantage], compare=False, repr=False
    )
    """A cache of comparisons: findings and checks need the same sign flips."""

    @property
    def is_share(self) -> bool:
        """Whether the figure is a share of questions, like what a champion may have lost."""
        return (self.unit, self.lowest, self.highest) == ("fraction", 0.0, 1.0)

    def alpha(self, criterion: Criterion | None) -> float:
        """Return the significance level of one verdict."""
        return level_of(criterion, on_holdout=self.on == "holdout", looks=self.looks)

    def facts(self, *, repeated: bool = True) -> MetricFacts:
        """Return the facts that explain the figures. ``repeated``: the spread of repeats was measured."""
        spread = self.repeat_spread if repeated else None
        return MetricFacts(unit=self.unit, lower_is_better=self.lower_is_better, repeat_spread=spread)

    def against(self, role: Role, *, alpha: float, seed: int) -> Advantage | None:
        """Compare the candidate with the contestant ``role``; None: it was not measured."""
        if role not in self.scores or Role.CANDIDATE not in self.scores:
            return None
        if (earlier := self._compared.get((role, alpha, seed))) is not None:
            return earlier
        span = self.highest - self.lowest
        found = self._compared[role, alpha, seed] = compare(
            self.scores[Role.CANDIDATE],
            self.scores[role],
            self.clusters,
            test=self.test,
            alpha=alpha,
            lower_is_better=self.lower_is_better,
            span=span if np.isfinite(span) else None,
            seed=seed,
            flips=self.flips,
        )
        return found

    def figure_of(self, role: Role) -> float:
        """Return a contestant's figure, in the metric's unit."""
        return self.scores[role].figure(self.test)

    def figure(self, *, alpha: float) -> Interval:
        """Bound the candidate's own figure."""
        return figure_interval(
            self.scores[Role.CANDIDATE],
            self.clusters,
            test=self.test,
            alpha=alpha,
            lowest=self.lowest,
            highest=self.highest,
            others=[its.values for role, its in self.scores.items() if role is not Role.CANDIDATE],
        )
