"""Evidence that something changed, gathered one item at a time and valid whenever it is looked at.

An *e-value* is a number of at least 0 whose mean is at most 1 while nothing has changed. A detector turns
every item into one, for instance ``bad / tolerated rate``. Betting a share g of one's wealth on each
multiplies the wealth by 1 - g + g * e (Waudby-Smith and Ramdas, "Estimating means of bounded random
variables by betting", JRSS B 2024); several shares are bet side by side, since nobody knows how large a
change will be.

Wealth alone would forget how to see a change after a long healthy time: it would be spent by then. The
Shiryaev-Roberts e-detector (Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric framework for
sequential change detection", NEJSDS 2023) therefore begins a new bet of 1 with every window and adds them
all up. While nothing has changed the sum reaches A after A windows on average at the earliest (their
theorem on the average run length), whatever the distribution and however often one looks. So a detector
that may give a false alarm in a share ``a`` of windows speaks at a sum of 1 / a.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunewheel_contracts.formats.drift_spec import DriftSpec

from tunewheel_monitor.detectors.protocol import HORIZON, State

BETS = (0.01, 0.03, 0.1, 0.25, 0.6)
"""Shares of the wealth that are bet: roughly the shares of changed traffic that each is best at."""
CEILING = 10.0
"""Evidence is kept below so many times what is needed for an alarm: it has to be able to fall again soon
after a change is over. Less evidence is never invalid."""

CALM = 0.5
"""p-value from which there is no evidence to speak of."""


def opened(drift: DriftSpec, weight: float) -> State:
    """Begin to gather. ``weight``: the detector's share of the false alarms that all of them may give."""
    return {"threshold": weight * drift.p_value / HORIZON, "wealth": [1.0] * len(BETS), "bets": 0}


def bet(evidence: State, e_value: float) -> None:
    """Take an item in, by its e-value."""
    most = CEILING / evidence["threshold"]
    wealth: list[float] = evidence["wealth"]
    for index, share in enumerate(BETS):
        wealth[index] = min(most, wealth[index] * (1.0 - share + share * e_value))
    evidence["bets"] += 1


def close(evidence: State) -> float:
    """End a window: return the p-value, and begin new bets. A window without items changes nothing."""
    wealth: list[float] = evidence["wealth"]
    if not evidence["bets"]:
        return p_value([one - 1.0 for one in wealth])
    found = p_value(wealth)
    evidence["wealth"] = [one + 1.0 for one in wealth]
    evidence["bets"] = 0
    return found


def lengthen(state: State, bad: int, seen: int, found: float) -> tuple[int, int]:
    """Return (bad, all) of the stretch that the evidence rests on, the window that ends included: what a
    change is measured by. ``state["stretch"]`` begins anew while there is no evidence to speak of."""
    stretch = state["stretch"][0] + bad, state["stretch"][1] + seen
    state["stretch"] = [0, 0] if found >= CALM else list(stretch)
    return stretch


def p_value(wealth: Sequence[float]) -> float:
    """Return 1 / the mean of ``wealth``, at most 1."""
    mean = sum(wealth) / len(wealth)
    return min(1.0, 1.0 / mean) if mean > 0 else 1.0
