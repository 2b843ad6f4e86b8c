"""Gathers evidence of a change, one item at a time. The evidence is valid at any time, however often it is
checked.

An *e-value* is a number of at least 0 whose mean is at most 1 while nothing has changed. A detector turns
every item into an e-value, for example ``bad / tolerated rate``. Betting a share g of one's wealth on each
item multiplies the wealth by 1 - g + g * e (Waudby-Smith and Ramdas, "Estimating means of bounded random
variables by betting", JRSS B 2024). Several shares are bet in parallel, since the size of a change is not
known beforehand.

After a long healthy time the wealth of one bet would be lost, and a change could not be seen. So the
Shiryaev-Roberts e-detector (Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric framework for sequential
change detection", NEJSDS 2023) begins a new bet with every item, and adds up all bets. The bets that begin in
a window are worth 1 together. While nothing has changed, the sum reaches A after at least A windows on
average (their theorem on the average run length), for any distribution and any number of checks. So a
detector that may give a false alarm in a share ``a`` of windows raises an alarm at a sum of 1 / a.
"""

from __future__ import annotations

from tunewheel_monitor.detectors.protocol import HORIZON, Opening, State

BETS = (0.01, 0.03, 0.1, 0.25, 0.6)
"""The shares of the wealth that are bet. Each is best for about that share of changed traffic."""
CEILING = 10.0
"""Evidence is capped at this multiple of what an alarm needs, so that it can fall soon after a change is
over. A lower value is always valid."""

SETTINGS = {"": ("threshold", "most"), "evidence": ("threshold", "stake"), "voters": ("window", "given")}
"""The fields of a detector's state that follow from the spec. ``given`` is among them because votes are
counted per window: the count of a larger window would exceed a key's limit in a smaller one."""
LATELY = 400.0
"""The size of a change is measured over about so many recent items."""
CALM = 0.5
"""The p-value from which there is practically no evidence."""


def opened(opening: Opening, weight: float) -> State:
    """Return the initial evidence of a detector of ``weight``."""
    threshold = weight / opening.weights * opening.drift.p_value / HORIZON
    return {"threshold": threshold, "stake": 1 / opening.drift.window, "wealth": [1.0] * len(BETS)}


def follow(state: State, opened: State) -> None:
    """Copy the fields that follow from the spec and the detectors' weights from ``opened``, the detector's
    initial state under a changed spec or release. The gathered evidence stays, because it is valid at any
    threshold."""
    if inner := state.get("encoded"):
        follow(inner, opened)
    for part, names in SETTINGS.items():
        mine, new = (state.get(part), opened.get(part)) if part else (state, opened)
        if mine and new:
            mine.update({name: new[name] for name in names if name in new})


def bet(evidence: State, e_value: float, ceiling: float = CEILING) -> None:
    """Update the evidence with an item's e-value. It is capped at ``ceiling`` times what an alarm needs."""
    most, stake = ceiling / evidence["threshold"], evidence["stake"]
    wealth: list[float] = evidence["wealth"]
    for index, share in enumerate(BETS):
        wealth[index] = min(most, (wealth[index] + stake) * (1.0 - share + share * e_value))


def lengthen(state: State, bad: float, seen: int, found: float) -> tuple[float, float]:
    """Return (bad, all) over the stretch of windows on which the evidence rests, including the window that
    ends. The size of a change is measured over it.

    ``state["stretch"]`` starts again while there is practically no evidence. In a long stretch older items
    fade: a little evidence can last for ever, and must not dilute a later change.
    """
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
