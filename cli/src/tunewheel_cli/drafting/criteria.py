"""Chooses criteria that a better model is likely to meet on the rows that will be held out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

ENOUGH = 0.8
ASKED = 0.5
"""Significance of criteria on few rows: .05 for each of ten verdicts."""
RESOLUTION = 0.05
DRAWS = 180
"""Models that are drawn to choose by: chances are told to about .04."""
_BOUNDS = ((0.2, -0.05), (0.1, -0.05), (0.1, -0.1), (0.05, -0.15), (0.0, -0.2))
"""What is asked over the base and over the champion, the strictest first."""


@dataclass(frozen=True, slots=True)
class Choice:
    criteria: tuple[dict[str, Any], ...]
    rows: int
    first: float
    """How likely a good first model meets them."""
    better: float
    """How likely a model that is .10 better than the champion meets them."""

    @property
    def is_decidable(self) -> bool:
        return min(self.first, self.better) >= ENOUGH


def choose_criteria(metric: str, *, rows: int) -> Choice:
    """Return the strictest criteria of ``metric`` that ``rows`` held-out rows can decide, else the
    mildest."""
    from tunewheel_contracts.formats.criteria import Criterion
    from tunewheel_verdicts.power import chances, sizes_of

    def tried(criteria: Sequence[dict[str, Any]]) -> Choice:
        asked = [Criterion.model_validate(one) for one in criteria]
        told = chances(asked, sizes_of(max(1, rows)), resolution=RESOLUTION, draws=DRAWS)
        return Choice(tuple(criteria), rows, told[0].met, told[-1].met)

    *stricter, mildest = _ladder(metric)
    last = tried(mildest)
    if not last.is_decidable:
        return last
    return next((one for one in map(tried, stricter) if one.is_decidable), last)


def _ladder(metric: str) -> Iterator[Sequence[dict[str, Any]]]:
    for base, champion in _BOUNDS:
        if metric == "chrf":  # a text may be right in many words: that the answers are likelier is the proof
            better: list[dict[str, Any]] = [
                {"metric": "perplexity", "over_base": 0.0, "significance": ASKED},
                {"metric": metric, "over_champion": champion, "significance": ASKED},
            ]
        else:
            better = [{"metric": metric, "over_base": base, "over_champion": champion, "significance": ASKED}]
        yield better
