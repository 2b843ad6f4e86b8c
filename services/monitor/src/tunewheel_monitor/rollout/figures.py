"""The figures by which candidate and champion are compared. Each figure is a share; each request is 0 or 1.

In shadow both sides answer the same question, and a difference is that of one pair. In canary a difference is
that of two small groups: once each side has an observation since the last difference, the means of both
groups are compared. So both sides are compared over the same time, and an outage or an hour of hard questions
does not count against one side.

Slowness is a share too: that of requests that take longer than ``slowdown`` times the champion's 90th
percentile so far. The limit is the same for both sides of a difference, and is fixed before it.

Requests of one user are not independent: they are similar, and in canary all go to one side. So each user
counts once per side, with the first request, and once more with the first rating.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from tunewheel_monitor.rollout.sequences import key

Side = Literal["candidate", "champion"]
Figure = dict[str, Any]
"""``counts``: how often each difference occurred. ``pairs``: the number of differences, ``sum``: their sum.
``candidate``, ``champion``: [sum, number] of all observations. ``open``: the same for observations that are
in no difference yet."""
FIGURES = ("errors", "incidents", "invalid", "latency", "first_token", "feedback", "labels")
SIDES: tuple[Side, Side] = ("candidate", "champion")
MOST_IN_A_GROUP = 8
"""A group has at most its first eight observations, for a side with far more requests. A ninth adds almost
nothing, and the number of distinct differences stays small."""
WARM_UP = 10
"""So many answers of the champion set the first limit of slowness. Until then no request counts as slow."""
STEP = math.log(1.05)
"""The width of a histogram bin of times: the percentile is exact to 5 %."""
SHORTEST = 0.001
SLOW = 0.9
"""The percentile for slowness. With the 95th, a heavy tail would hide that answers are twice as slow."""


def new_figure() -> Figure:
    empty = {side: [0.0, 0] for side in SIDES}
    return {"counts": {}, "sum": 0.0, "pairs": 0, **empty, "open": {side: [0.0, 0] for side in SIDES}}


def observe(figure: Figure, side: Side, value: float) -> bool:
    """Add one observation. Return whether it completed a difference."""
    _add(figure[side], value)
    waiting = figure["open"]
    if waiting[side][1] < MOST_IN_A_GROUP:
        _add(waiting[side], value)
    if not (waiting["candidate"][1] and waiting["champion"][1]):
        return False
    _note(figure, _mean(waiting["candidate"]) - _mean(waiting["champion"]))
    figure["open"] = {side: [0.0, 0] for side in SIDES}
    return True


def compare(figure: Figure, candidate: float, champion: float) -> bool:
    """Add a pair of observations of the same question."""
    _add(figure["candidate"], candidate)
    _add(figure["champion"], champion)
    _note(figure, candidate - champion)
    return True


def against(figure: Figure, value: float, reference: float) -> bool:
    """Add an observation of a candidate without a champion; ``reference`` takes the champion's place."""
    _add(figure["candidate"], value)
    _note(figure, value - reference)
    return True


def rise(figure: Figure) -> float:
    """Return the mean difference; 0 if there is none."""
    return figure["sum"] / figure["pairs"] if figure["pairs"] else 0.0


def share(figure: Figure, side: Side) -> float:
    """Return the side's share of 1; 0 if nothing was observed."""
    return _mean(figure[side])


def observe_time(figure: Figure, side: Side, seconds: float, slowdown: float) -> bool:
    """Add one request's time as slow or not slow. During the warm-up it only sets the limit."""
    waiting = figure["open"]
    if not (waiting["candidate"][1] or waiting["champion"][1]):
        figure["limit"] = _limit(figure, slowdown)
    limit = figure.get("limit")
    if side == "champion":
        _learn(figure, seconds)
    return limit is not None and observe(figure, side, float(seconds > limit))


def compare_times(figure: Figure, candidate: float, champion: float, slowdown: float) -> bool:
    """Add both sides' times for the same question."""
    figure["limit"] = limit = _limit(figure, slowdown)
    _learn(figure, champion)
    return limit is not None and compare(figure, float(candidate > limit), float(champion > limit))


def is_timed(figure: Figure) -> bool:
    """Return whether the champion's times were measured."""
    return bool(figure.get("times"))


def _limit(figure: Figure, slowdown: float) -> float | None:
    times: dict[str, int] = figure.get("times", {})
    wanted = SLOW * sum(times.values())
    if sum(times.values()) < WARM_UP:
        return None
    seen = 0
    for number in sorted(map(int, times)):
        seen += times[str(number)]
        if seen >= wanted:
            return SHORTEST * math.exp(STEP * number) * slowdown
    return None


def _learn(figure: Figure, seconds: float) -> None:
    number = str(math.ceil(math.log(max(seconds, SHORTEST) / SHORTEST) / STEP))
    times = figure.setdefault("times", {})
    times[number] = times.get(number, 0) + 1


def _add(total: list[Any], value: float) -> None:
    total[0] += value
    total[1] += 1


def _mean(total: list[Any]) -> float:
    return total[0] / total[1] if total[1] else 0.0


def _note(figure: Figure, difference: float) -> None:
    name = key(difference)
    figure["counts"][name] = figure["counts"].get(name, 0) + 1
    figure["sum"] += difference
    figure["pairs"] += 1
