"""Evidence that something changed, gathered one item at a time and valid whenever it is looked at.

An *e-value* is a number of at least 0 whose mean is at most 1 while nothing has changed. A detector turns
every item into one, for instance ``bad / tolerated rate``. Betting a share g of one's wealth on each
multiplies the wealth by 1 - g + g * e (Waudby-Smith and Ramdas, "Estimating means of bounded random
variables by betting", JRSS B 2024); several shares are bet side by side, since nobody knows how large a
change will be.

Wealth alone would forget how to see a change after a long healthy time: it would be spent by then. The
Shiryaev-Roberts e-detector (Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric framework for sequential
change detection", NEJSDS 2023) therefore begins a new bet with every item and adds them all up. The bets that
begin in a window are worth 1 together. While nothing has changed the sum reaches A after A windows on average
at the earliest (their theorem on the average run length), whatever the distribution and however often one
looks. So a detector that may give a false alarm in a share ``a`` of windows speaks at a sum of 1 / a.
"""

from __future__ import annotations

from tunewheel_contracts.formats.drift_spec import DriftSpec

from tunewheel_monitor.detectors.protocol import HORIZON, State

BETS = (0.01, 0.03, 0.1, 0.25, 0.6)
"""Shares of the wealth that are bet: roughly the shares of changed traffic that each is best at."""
CEILING = 10.0
"""Evidence is kept below so many times what is needed for an alarm: it has to be able to fall again soon
after a change is over. Less evidence is never invalid."""

SETTINGS = {"": ("threshold", "most"), "evidence": ("threshold", "stake"), "voters": ("window", "given")}
"""Fields of a detector's state, and of its parts, that the spec decides. Votes given are counted within a
window: those of a larger one would use up what each key may give in a smaller one."""
LATELY = 400.0
"""Items that say how large a change is."""
CALM = 0.5
"""p-value from which there is no evidence to speak of."""


def opened(drift: DriftSpec, weight: float) -> State:
    """Begin to gather. ``weight``: the detector's share of the false alarms that all of them may give."""
    threshold = weight * drift.p_value / HORIZON
    return {"threshold": threshold, "stake": 1 / drift.window, "wealth": [1.0] * len(BETS)}


def follow(state: State, opened: State) -> None:
    """Take over what follows from ``drift.window`` and ``drift.p_value`` from ``opened``, the same detector's
    state as a changed spec opens it. What was gathered stays: it is valid whatever it is held against."""
    for part, names in SETTINGS.items():
        mine, new = (state.get(part), opened.get(part)) if part else (state, opened)
        if mine and new:
            mine.update({name: new[name] for name in names if name in new})


def bet(evidence: State, e_value: float) -> None:
    """Take an item in, by its e-value."""
    most, stake = CEILING / evidence["threshold"], evidence["stake"]
    wealth: list[float] = evidence["wealth"]
    for index, share in enumerate(BETS):
        wealth[index] = min(most, (wealth[index] + stake) * (1.0 - share + share * e_value))


def lengthen(state: State, bad: int, seen: int, found: float) -> tuple[float, float]:
    """Return (bad, all) of the stretch that the evidence rests on, the window that ends included: what a
    change is measured by. ``state["stretch"]`` begins anew while there is no evidence to speak of. Of a long
    one older items fade: a little evidence can last for ever, and a change after that is no smaller."""
    kept = LATELY / (LATELY + seen)
    bad_lately, seen_lately = (
        round(kept * before + more, 3) for before, more in zip(state["stretch"], (bad, seen), strict=True)
    )
    state["stretch"] = [0.0, 0.0] if found >= CALM else [bad_lately, seen_lately]
    return bad_lately, seen_lately


def p_value(evidence: State) -> float:
    """Return 1 / the evidence, at most 1."""
    wealth: list[float] = evidence["wealth"]
    mean = sum(wealth) / len(wealth)
    return min(1.0, 1.0 / mean) if mean > 0 else 1.0
