"""The rounds of a sweep: how many recipes each trains, and up to which part of their steps."""

from __future__ import annotations

import math
from typing import NamedTuple

from tunewheel_contracts.formats.sweep import SweepMethod

FACTOR = 3
"""One of so many recipes goes on to the next round, for so many times as many steps."""


class Round(NamedTuple):
    """The best ``recipes`` are trained from the part ``before`` of their steps to ``part``. ``after`` whole
    runs are trained in later rounds."""

    recipes: int
    part: float
    before: float
    after: float


def rounds_of(method: SweepMethod, recipes: int) -> list[Round]:
    """Return the rounds in which ``recipes`` are tried.

    Successive halving (Jamieson & Talwalkar, arXiv:1502.07943, algorithm 1), by thirds as Hyperband advises
    (arXiv:1603.06560, section 2.6): a third of the recipes go on, for three times as many steps. A recipe
    follows its own schedule, and is stopped on it.
    """
    counts = [recipes]
    while method is not SweepMethod.GRID and counts[-1] > 1:
        counts.append(math.ceil(counts[-1] / FACTOR))
    parts = [FACTOR ** (number + 1.0 - len(counts)) for number in range(len(counts))]
    befores = [0.0, *parts]
    trained = [count * (part - before) for count, part, before in zip(counts, parts, befores, strict=False)]
    return [
        Round(count, part, befores[at], sum(trained[at + 1 :]))
        for at, (count, part) in enumerate(zip(counts, parts, strict=True))
    ]
