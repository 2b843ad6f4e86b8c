"""The command about detectors."""

from __future__ import annotations

from collections.abc import Sequence

from tunewheel_cli.listing import listing

BARS = "▁▂▃▄▅▆▇█"
CURVE = 24
"""How many of the latest windows the curve shows."""


def curve(effects: Sequence[float], floor: float | None) -> str:
    """Return one bar for each of the latest effects; a full one reaches ``floor``."""
    if not floor:
        return ""
    shares = (max(0.0, min(1.0, effect / floor)) for effect in effects[-CURVE:])
    return "".join(BARS[int(share * (len(BARS) - 1))] for share in shares)


list_ = listing(
    "detectors",
    """List the detectors of a project: what each measures now, and how near an alarm is.

    The curve shows the effect in the latest windows, from none to the floor, from which on it is worth an
    alarm.
    """,
    "no window of {project} was judged yet",
    {
        "detector": "detector", "state": "state", "measures": "statistic_name", "now": "statistic",
        "usual": "usual", "effect": "effect", "floor": "floor", "p": "p_value", "alarm below": "threshold",
        "curve": lambda one: curve(one.series.effect, one.floor), "judged": "judged_at",
    },
    shorten=("measures",),
)  # fmt: skip
