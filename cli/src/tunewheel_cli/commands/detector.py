"""The command about detectors."""

from __future__ import annotations

from collections.abc import Sequence

from tunewheel_cli.calling import Call, Limit, Project, calling

BARS = "▁▂▃▄▅▆▇█"
CURVE = 24
"""How many of the latest windows the curve shows."""


@calling
def list_(call: Call, project: Project, limit: Limit = 50) -> None:
    """List the detectors of a project: what each measures now, and how near an alarm is.

    The curve shows the effect in the latest windows, from none to the floor, from which on it is worth an
    alarm.
    """
    from tunewheel_cli.texts import print_page

    print_page(
        call, call.client.detectors.list(project, limit=limit), f"no window of {project} was judged yet",
        (
            "detector", "state", "measures", "now", "usual", "effect", "floor", "p", "alarm below", "curve",
            "judged",
        ),
        lambda one: (
            one.detector, one.state, one.statistic_name, one.statistic, one.usual, one.effect, one.floor,
            one.p_value, one.threshold, curve(one.series.effect, one.floor), one.judged_at,
        ),
        shorten=("measures",),
    )  # fmt: skip


def curve(effects: Sequence[float], floor: float | None) -> str:
    """Return one bar for each of the latest effects; a full one reaches ``floor``."""
    if not floor:
        return ""
    shares = (max(0.0, min(1.0, effect / floor)) for effect in effects[-CURVE:])
    return "".join(BARS[int(share * (len(BARS) - 1))] for share in shares)
