"""Compares four cells on the same questions: base and tuned model, each with and without passages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

from tunewheel_contracts.fields import shared
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.retrieval_scores import Cell, CellDifference
from tunewheel_outputs.criteria import ALPHA
from tunewheel_verdicts.significance import Advantage, Clusters, compare

from tunewheel_eval.comparisons import comparable, signed
from tunewheel_eval.metrics import Outcomes, metric_of

ORDERED_PAIRS = 12
"""The significance level of one comparison of two cells. It is .05 / 12, so that among four equal cells the
probability of any wrong claim is at most .05 (Bonferroni)."""
_EFFECTS = ((Cell.BASE_WITH_PASSAGES, Cell.BASE), (Cell.TUNED_WITH_PASSAGES, Cell.TUNED))
_SLACK = 1e-9


@dataclass(frozen=True)
class Cells:
    """The outcomes of the four cells on the same rows."""

    outcomes: Mapping[Cell, Outcomes]
    clusters: Clusters
    """The clusters of these rows."""
    seed: int

    def figures(self, cell: Cell) -> dict[str, float]:
        """Return a cell's figures on held-out rows, by metric."""
        all_figures = self.outcomes[cell].figures()
        return {name: value for name, value in all_figures.items() if name in self.outcomes[cell].by_metric}

    def metrics(self) -> list[str]:
        """Return the metrics that all cells have."""
        first, *others = (one.by_metric for one in self.outcomes.values())
        return [name for name in first if all(name in one for one in others)]

    def advantage(self, metric: str, cell: Cell, against: Cell, *, alpha: float) -> Advantage:
        """Compare two cells on the rows to which the metric applies."""
        definition = metric_of(metric)
        mine, theirs = (self.outcomes[one].by_metric[metric] for one in (cell, against))
        scored = mine.scored & theirs.scored
        span = None if definition.highest is None else definition.highest - definition.lowest
        return compare(
            mine.only(scored),
            comparable(definition, theirs.only(scored), mine.only(scored)),
            self.clusters[scored],
            test=definition.test,
            alpha=alpha,
            lower_is_better=definition.lower_is_better,
            span=span,
            seed=self.seed,
        )

    def difference(self, metric: str, cell: Cell, against: Cell, *, alpha: float) -> CellDifference:
        """Return ``cell`` minus ``against``, in the metric's unit."""
        found = self.advantage(metric, cell, against, alpha=alpha)
        found = signed(found, lower_is_better=metric_of(metric).lower_is_better)
        return CellDifference(**shared(CellDifference, found), metric=metric, cell=cell, against=against)

    def differences(self, decides: str) -> tuple[CellDifference, ...]:
        """Return the differences: for the metric ``decides`` between every two cells, for the other metrics
        only between the same model with and without passages."""
        cells = list(Cell)
        pairs = [(cell, other) for n, cell in enumerate(cells) for other in cells[:n]]
        found = [self.difference(decides, *pair, alpha=ALPHA / ORDERED_PAIRS) for pair in pairs]
        others = [name for name in self.metrics() if name != decides]
        return (*found, *(self.difference(name, *pair, alpha=ALPHA) for name in others for pair in _EFFECTS))

    def better(self, metric: str) -> set[tuple[Cell, Cell]]:
        """Return the pairs (winner, loser) with a significant difference."""
        alpha = ALPHA / ORDERED_PAIRS
        found: set[tuple[Cell, Cell]] = set()
        for one, other in permutations(Cell, 2):
            compared = self.advantage(metric, one, other, alpha=alpha)
            if compared.low > _SLACK and compared.p_value <= alpha:
                found.add((one, other))
        return found


def deciding(criteria: Sequence[Criterion], metrics: Sequence[str]) -> str | None:
    """Return the metric by which cells are compared: that of the first criterion that asks for an advantage,
    else that of the first criterion, else perplexity. None: ``metrics`` has none of them."""
    asked = [one for one in criteria if one.metric in metrics]
    ahead = [one for one in asked if one.over_base is not None or one.over_champion is not None]
    ahead += [one for one in asked if one.significance is not None and one not in ahead]
    names = [str(one.metric) for one in (*ahead, *asked)]
    return next((name for name in (*names, "perplexity") if name in metrics), None)


def best_of(better: set[tuple[Cell, Cell]]) -> tuple[Cell, ...]:
    """Return the cells that no other cell beats."""
    return tuple(cell for cell in Cell if all(loser is not cell for _, loser in better))
