"""Scores a sample of each project's prompts by the sentence encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from tunewheel_contracts.events.monitoring import Encoded
from tunewheel_embedding.sentence import SentenceEmbedder

from tunewheel_monitor.coverage import LEVELS, ODD, Encoding
from tunewheel_monitor.detectors.picking import encoded

FIRST = 0.1
"""The share of an hour's prompts that a process may encode at once when it first sees a project."""
MOST_PROJECTS = 10_000


@dataclass
class Sample:
    """At most ``per_hour`` prompts of each project, by the prompts' own times: a token bucket."""

    encoder: SentenceEmbedder | None = None
    per_hour: int = 0
    _left: dict[str, tuple[float, datetime]] = field(default_factory=dict[str, tuple[float, datetime]])
    """By project: how many more prompts may be drawn, at the latest time seen."""

    def scores(
        self, project: str, questions: Sequence[str], times: Sequence[datetime], encoding: Encoding | None
    ) -> Iterator[tuple[int, Encoded]]:
        """Yield the places of the drawn questions of a batch, each with its scores. ``encoding`` None: the
        dataset is not encoded, and none is drawn."""
        if encoding is None or self.encoder is None:
            return
        places = self.draw(project, times)
        units = self.encoder.units([questions[place] for place in places])
        found = encoding.coverage.score(units)
        odd = encoding.coverage.facts.levels[LEVELS.index(ODD)]
        for row, place in enumerate(places):
            yield (
                place,
                Encoded(
                    encoder=encoding.encoder,
                    cell=int(found.cell[row]),
                    novelty=round(float(found.novelty[row]), 4),
                    novel=bool(found.novel[row]),
                    vector=encoded(units[row]) if found.novelty[row] > odd else None,
                ),
            )

    def draw(self, project: str, times: Sequence[datetime]) -> list[int]:
        """Return which prompts of a batch are drawn, spread evenly over it."""
        if not self.per_hour or not times:
            return []
        left, since = self._left.pop(project, (FIRST * self.per_hour, max(times)))
        latest = max(since, *times)
        left = min(self.per_hour, left + self.per_hour * (latest - since).total_seconds() / 3600)
        drawn = min(len(times), int(left))
        self._left[project] = left - drawn, latest
        while len(self._left) > MOST_PROJECTS:
            del self._left[next(iter(self._left))]
        return np.unique(np.linspace(0, len(times) - 1, drawn).round().astype(int)).tolist()
