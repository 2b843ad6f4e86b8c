"""What candidate and champion are compared by: each figure is a share, each request a yes or a no.

Where the same question was answered by both (shadow), a difference is that of one pair. Else (canary) a
difference is that of two small groups: as soon as each side has seen something since the last one, the mean
of the candidate's is compared with the mean of the champion's. So both are compared over the same stretch of
time: an outage, or an hour of hard questions, is held against neither.

How slow a request is is a share too: of the requests that take longer than ``slowdown`` times the champion's
90th percentile until then. The limit stays the same for both sides of a difference, and is known before.

The requests of one user are no independent observations: they are alike, and in canary they all go to one
side. Each user counts once by side, with the first request, and once more with the first rating.
"""

from __future__ import annotations

import math
import zlib
from typing import Any, Literal

from tunewheel_monitor.rollout.sequences import key

Side = Literal["candidate", "champion"]
Figure = dict[str, Any]
"""``counts``: differences, of which there are ``pairs`` with this ``sum``; ``candidate``, ``champion``: [sum,
number] of all observations; ``open``: of those that no difference holds yet."""
FIGURES = ("errors", "incidents", "invalid", "latency", "first_token", "feedback", "labels")
SIDES: tuple[Side, Side] = ("candidate", "champion")
MOST_IN_A_GROUP = 8
"""Of a side that sees far more requests the first eight: the ninth tells next to nothing more, and the
differences stay few different ones."""
WARM_UP = 10
"""Answers of the champion that say what slow means, before any request is called slow."""
WORDS, BITS = 128, 64
"""Room for the users that were counted. Of 1,000 users 6 % are left out, of 10,000 half."""
STEP = math.log(1.05)
"""Width of a class of times: the percentile is right to five in a hundred."""
SHORTEST = 0.001
SLOW = 0.9
"""Not the 95th: with a heavy tail twice as slow would lie within the margin."""


def new_figure() -> Figure:
    empty = {side: [0.0, 0] for side in SIDES}
    return {"counts": {}, "sum": 0.0, "pairs": 0, **empty, "open": {side: [0.0, 0] for side in SIDES}}


def observe(figure: Figure, side: Side, value: float) -> bool:
    """Note one observation; tell whether it made a difference complete."""
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
    """Note a pair of observations of the same question."""
    _add(figure["candidate"], candidate)
    _add(figure["champion"], champion)
    _note(figure, candidate - champion)
    return True


def against(figure: Figure, value: float, reference: float) -> bool:
    """Note an observation of the candidate, beside which nobody answers: ``reference`` stands for them."""
    _add(figure["candidate"], value)
    _note(figure, value - reference)
    return True


def rise(figure: Figure) -> float:
    """Return the mean difference; 0 where there is none."""
    return figure["sum"] / figure["pairs"] if figure["pairs"] else 0.0


def share(figure: Figure, side: Side) -> float:
    """Return the side's share of yes; 0 where nothing was observed."""
    return _mean(figure[side])


def observe_time(figure: Figure, side: Side, seconds: float, slowdown: float) -> bool:
    """Note how long one request took, as slow or not; what comes before the warm-up's end only warms up."""
    waiting = figure["open"]
    if not (waiting["candidate"][1] or waiting["champion"][1]):
        figure["limit"] = _limit(figure, slowdown)
    limit = figure.get("limit")
    if side == "champion":
        _learn(figure, seconds)
    return limit is not None and observe(figure, side, float(seconds > limit))


def compare_times(figure: Figure, candidate: float, champion: float, slowdown: float) -> bool:
    """Note how long both took over the same question."""
    figure["limit"] = limit = _limit(figure, slowdown)
    _learn(figure, champion)
    return limit is not None and compare(figure, float(candidate > limit), float(champion > limit))


def is_timed(figure: Figure) -> bool:
    """Tell whether the champion's answers took any time."""
    return bool(figure.get("times"))


def is_first(seen: list[int], user: str | None) -> bool:
    """Tell whether ``user`` was not counted before; note that they are now. ``seen`` has a bit for each user,
    and two who share one pass for one: some requests are left out, whatever they are like, and it stays
    small."""
    if user is None:
        return True
    word, bit = divmod(zlib.crc32(user.encode()) % (WORDS * BITS), BITS)
    seen.extend([0] * (WORDS - len(seen)))
    if seen[word] >> bit & 1:
        return False
    seen[word] |= 1 << bit
    return True


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
