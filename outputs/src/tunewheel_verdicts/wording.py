"""The words of a verdict: figures, intervals, and what further rows would tell."""

from __future__ import annotations

from math import ceil

import numpy as np
from tunewheel_contracts.formats.scorecard import MET, MISSED, UNDECIDED, Role

from tunewheel_verdicts.measured import Measured
from tunewheel_verdicts.significance import Advantage

VERBS = {MET: "meets", MISSED: "misses", UNDECIDED: "cannot be told from"}


def words_of(advantage: Advantage, role: Role, theirs: float, outcome: str, asked: str) -> str:
    gained = between(advantage.difference, advantage.low, advantage.high, signed=True)
    return f"{gained} against the {role.value}'s {number(theirs)} {VERBS[outcome]} {asked}"


def words_of_worse(advantage: Advantage, theirs: float, asked: str) -> str:
    lost = between(advantage.difference, advantage.low, advantage.high, signed=True)
    return (
        f"{lost} against the champion's {number(theirs)} is shown to be worse than the champion, and "
        f"{asked} is not shown"
    )


def more_of(count: int, metric: Measured) -> str:
    rows, clusters = len(metric.clusters), len(np.unique(metric.clusters))
    if metric.on == "holdout" and clusters < rows:
        # rows of customers that the holdout has already would tell little
        count = ceil(count * clusters / rows)
        return "one more customer or document" if count == 1 else f"about {count} more customers or documents"
    nouns = {
        "holdout": ("held-out row", "held-out rows"),
        "regression": ("regression item", "regression items"),
        "judge": ("reviewed pair", "reviewed pairs"),
        "retrieval": ("question whose document is known", "questions whose document is known"),
    }
    one, several = nouns.get(metric.on, (f"question of {metric.on}", f"questions of {metric.on}"))
    return f"one more {one}" if count == 1 else f"about {count} more {several}"


def between(figure: float, low: float, high: float, *, signed: bool = False) -> str:
    one, two, three = (number(value, signed=signed) for value in (figure, low, high))
    return f"{one} ({two} to {three})"


def number(value: float, *, signed: bool = False) -> str:
    text = f"{value:.3g}" if abs(value) < 1e6 else f"{value:.3e}"
    return f"+{text}" if signed and value >= 0 else text
