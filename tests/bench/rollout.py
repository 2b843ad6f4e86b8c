"""How often a rollout is judged wrongly, and how many requests a verdict takes.

``shares`` simulates one figure, whose differences are pairs of one request each, or of one of the candidate's
with several of the champion's. ``whole`` plays whole trials through the code that the monitor runs: errors,
outputs' form and latency together, with users who ask several times. All look after every difference.
``answers`` lets people, and a judge, compare pairs of answers.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from report import write_report
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.lifecycle import ModelPromoted, Stage
from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.formats.rollout_spec import CanaryPolicy, RolloutSpec
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_monitor.rollout import comparisons, sequences, trials
from tunewheel_monitor.rollout.verdicts import BETA, EACH

ARMS = 10_000
AT_ONCE = 500
LONGEST = 1_500
FLOOR = 20
AT = datetime(2026, 1, 1, tzinfo=UTC)
NOTHING = InferenceScored.model_construct()
Found = dict[str, float]
Ends = tuple[NDArray[np.int64], NDArray[np.int64]]


def main() -> None:
    arms = int(sys.argv[1]) if len(sys.argv) > 1 else ARMS
    some = max(arms // 20, 5)
    found: dict[str, Any] = {}
    for name, measure in (
        ("equal arms", lambda: {f"{p:.0%}": shares(p, p, arms) for p in (0.0, 0.05, 0.1)}),
        ("+10 points", lambda: {f"{p:.0%}": shares(p + 0.1, p, arms) for p in (0.0, 0.05, 0.1)}),
        ("power, champion 5 %", lambda: power(arms // 2)),
        ("equal at 5 %, by margin", lambda: margins(arms // 4)),
        ("equal at 5 %, canary of 20 %", lambda: shares(0.05, 0.05, arms, beside=4)),
        ("whole trials", lambda: wholes(some)),
        ("guard, 5 % before", lambda: guards(some)),
        ("answers, 40 compared", lambda: answers(some)),
        ("answers, 100 compared", lambda: answers(some, people=100)),
        ("speed", speed),
    ):
        found[name] = measure()
        print(name, found[name], file=sys.stderr, flush=True)
    write_report("rollout", packages=("numpy",), contenders=found, ratios={}, arms=arms)


def power(arms: int) -> dict[str, Found]:
    rises = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3)
    return {f"+{rise:.2f}": shares(0.05 + rise, 0.05, arms) for rise in rises}


def margins(arms: int) -> dict[str, Found]:
    return {f"margin {m}": shares(0.05, 0.05, arms, margin=m) for m in (0.05, 0.1, 0.15, 0.2, 0.3)}


def shares(candidate: float, champion: float, arms: int, *, margin: float = 0.1, beside: int = 1) -> Found:
    """Return how trials end by one figure with these true shares; ``beside``: the champion's requests to one
    of the candidate's."""
    rng = np.random.default_rng(16)
    parts = [
        _some(candidate, champion, min(AT_ONCE, arms - start), margin, beside, rng)
        for start in range(0, arms, AT_ONCE)
    ]
    passed, failed = (np.concatenate(ends) for ends in zip(*parts, strict=True))
    return _ends(passed, failed)


def _some(
    candidate: float, champion: float, arms: int, margin: float, beside: int, rng: np.random.Generator
) -> Ends:
    """Return, by arm, after how many differences it passed, and failed; ``LONGEST`` for never."""
    hits = rng.random((arms, LONGEST)) < candidate
    others = rng.binomial(beside, champion, (arms, LONGEST))
    values = np.array([mine - other / beside for mine in (0, 1) for other in range(beside + 1)])
    which = hits * (beside + 1) + others
    below, above = np.full((2, arms, LONGEST), -np.inf)
    total = np.cumsum(values[which], axis=1)
    # the wealth of a fixed stake is a running product, so the table of differences is not needed here
    for stake in sequences.STAKES:
        for wealth, gains in ((below, (margin - values) / (1 - margin)), (above, values)):
            np.logaddexp(wealth, np.cumsum(np.log1p(stake * gains)[which], axis=1), out=wealth)
    below -= math.log(len(sequences.STAKES))
    above -= math.log(len(sequences.STAKES))
    mean = total / np.arange(1, LONGEST + 1)
    harmed = (above >= -math.log(EACH)) & (mean >= margin / 2)
    good = (below >= -math.log(BETA)) & (mean <= 0.05)
    good[:, : FLOOR - 1] = False
    return _first(good), _first(harmed)


def _first(shown: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.where(shown.any(axis=1), shown.argmax(axis=1) + 1, LONGEST)


def _ends(passed: NDArray[np.int64], failed: NDArray[np.int64]) -> Found:
    took = np.minimum(passed, failed)
    return {
        "passed": round(float(np.mean(passed < failed)), 4),
        "failed": round(float(np.mean(failed < passed)), 4),
        "median": float(np.median(took)),
        "of ten, nine within": float(np.quantile(took, 0.9)),
    }


Draw = Callable[[np.random.Generator], dict[str, Any]]


def answer(invalid: float, *, slower: float = 1.0, spread: float = 0.5) -> Draw:
    """Return what draws an answer: its form, and its latency, log-normal."""

    def draw(rng: np.random.Generator) -> dict[str, Any]:
        latency = slower * float(rng.lognormal(0, spread))
        return {"format_valid": bool(rng.random() >= invalid), "latency_seconds": latency}

    return draw


def wholes(rounds: int) -> dict[str, Found]:
    """Return how whole trials end; each side is a draw of answers."""
    equal = answer(0.05)
    cases: dict[str, tuple[Draw, Draw, int]] = {
        "equal at 0 %": (answer(0.0), answer(0.0), 0),
        "equal at 5 %": (equal, equal, 0),
        "equal at 10 %": (answer(0.1), answer(0.1), 0),
        "equal at 5 %, 400 users": (equal, equal, 400),
        "+10 points, 400 users": (answer(0.15), equal, 400),
        "twice as slow, spread .25": (answer(0.05, slower=2, spread=0.25), answer(0.05, spread=0.25), 0),
        "twice as slow, spread .5": (answer(0.05, slower=2), equal, 0),
        "twice as slow, spread 1": (answer(0.05, slower=2, spread=1), answer(0.05, spread=1), 0),
        "a tenth slower, spread .5": (answer(0.05, slower=1.1), equal, 0),
    }
    return {name: _whole(*case, rounds) for name, case in cases.items()}


def _whole(candidate: Draw, champion: Draw, users: int, rounds: int) -> Found:
    rng = np.random.default_rng(32)
    passed, failed = np.full((2, rounds), LONGEST)
    for number in range(rounds):
        verdict, requests = _play(candidate, champion, users, rng)
        if verdict != "undecided":
            (passed if verdict == "passed" else failed)[number] = requests
    return _ends(passed, failed)


def _play(candidate: Draw, champion: Draw, users: int, rng: np.random.Generator) -> tuple[str, int]:
    """Play one trial. Of ``users`` each stays with one side, some ask more than others, and what an answer of
    theirs is like is drawn once."""
    state, spec = _begun(), RolloutSpec(canary=CanaryPolicy(deadline_seconds=LONGEST))
    drawn: dict[str, dict[str, Any]] = {}
    for second in range(LONGEST):
        sides = [("old", champion), ("new", candidate)]
        for model, draw in sides if rng.random() < 0.5 else sides[::-1]:
            user = f"{model}-{int(users / 2 * rng.random() ** 2)}" if users else None
            shown = draw(rng) if user is None else drawn.setdefault(user, draw(rng))
            trials.count(state, _item(model, second, user=user, **shown), spec)
        if state["open"]["new"]["verdict"] is not None:
            break
    (found,) = trials.judge(state, "p", spec, AT + timedelta(seconds=LONGEST))
    late = found.data.decided_by == "deadline"
    return ("undecided", LONGEST) if late else (found.data.verdict, found.data.requests)


def guards(rounds: int) -> dict[str, Found]:
    """Return, by the true share of invalid outputs in production, how often the model is taken back within
    ``LONGEST`` requests, and after how many."""
    result: dict[str, Found] = {}
    for now in (0.05, 0.08, 0.15, 0.25, 0.5):
        rng = np.random.default_rng(7)
        took = np.array([_guarded(answer(now), rng) for _ in range(rounds)])
        found = took[took < LONGEST]
        median = float(np.median(found)) if len(found) else math.inf
        result[f"{now:.0%}"] = {"taken back": round(len(found) / rounds, 4)} | (
            {"median": median} if len(found) else {}
        )
    return result


def _guarded(draw: Draw, rng: np.random.Generator) -> int:
    """Return after how many requests the guard speaks; before, 150 were compared with 600."""
    state, spec = _begun(), RolloutSpec()
    state["open"].clear()
    share = rng.binomial(600, 0.05)
    before = share / 600, sequences.upper(sequences.shares(int(share), 600), EACH / 2)
    reference = {"invalid": before}
    state["passed"]["new"] = {"stage": "canary", "reference": reference}
    trials.follow(state, _step(Stage.CANARY, Stage.PRODUCTION))
    for second in range(LONGEST):
        trials.count(state, _item("new", second, role=RouteRole.PRODUCTION, **draw(rng)), spec)
        if state["open"]["new"]["verdict"] is not None:
            return second + 1
    return LONGEST


def answers(rounds: int, *, people: int = 40, differ: float = 0.2) -> dict[str, Found]:
    """Return, by the true loss, by what must be shown, and by how often a judge agrees with people, how often
    a trial passes or fails within so many comparisons by people. A judge that does not agree prefers the
    candidate."""
    result: dict[str, Found] = {}
    for loss in (-0.1, -0.05, 0.0, 0.05, 0.1):
        for to_show in (-0.1, 0.0):
            for judge in (None, 0.8):
                rng = np.random.default_rng(29)
                ends = [_compared(loss, to_show, judge, people, differ, rng) for _ in range(rounds)]
                name = f"loss {loss:+.2f}, to show {to_show:+.2f}, judge {judge}"
                result[name] = _ends(*(np.array(end) for end in zip(*ends, strict=True)))
    return result


def _compared(
    loss: float, to_show: float, judge: float | None, people: int, differ: float, rng: np.random.Generator
) -> tuple[int, int]:
    """Return after how many comparisons by people a trial passes, and fails; ``LONGEST`` for never."""
    state, mean = comparisons.new_comparisons(), loss / differ
    same, other = ({"answer": text, "place": [0, 0], "model_id": "old"} for text in "ab")
    while len(state["drawn"]) < comparisons.MOST_DRAWN:
        number = state["differ"][1]
        comparisons.see(state, f"q{number}", other if rng.random() < differ else same, same)
    truth = rng.choice(3, size=len(state["drawn"]), p=[0.45 + mean / 2, 0.1, 0.45 - mean / 2])
    values = list(comparisons.LOSSES.values())
    losses = {name: values[kind] for name, kind in zip(comparisons.drawn(state), truth, strict=True)}

    def says(loss: float) -> float:
        return loss if rng.random() < (judge or 0.0) else values[-1]

    end, number = played(state, losses, says if judge is not None else None, people, to_show, gains=False)
    return (number if end == "passed" else LONGEST), (number if end == "failed" else LONGEST)


def played(
    state: comparisons.Comparisons,
    losses: Mapping[str, float],
    judge: Callable[[float], float] | None,
    people: int,
    to_show: float | None,
    *,
    margin: float = 0.1,
    gains: bool = True,
) -> tuple[str | None, int]:
    """Let ``judge`` compare all drawn pairs, and people the first of them one after the other, until the
    trial ends. Return its end, and after how many pairs of people; None: it stays open.

    ``losses``: what people say of each pair. ``gains``: whether a trial ends where nothing is gained.
    """
    words = {value: word for word, value in comparisons.LOSSES.items()}
    drawn = comparisons.drawn(state)
    for name in drawn if judge is not None else ():
        comparisons.compare(state, _comparison(name, words[judge(losses[name])], judge="a" * 64))
    ends = {"failed"} | ({"passed"} if to_show is not None else set()) | ({"no gain"} if gains else set())
    for number, name in enumerate(drawn[:people], 1):
        comparisons.compare(state, _comparison(name, words[losses[name]]))
        if (end := comparisons.end(state, to_show, margin=margin, alpha=EACH)) in ends:
            return end, number
    return ("passed" if to_show is None else None), LONGEST


def _comparison(name: str, preference: str, judge: str | None = None) -> InferenceScored:
    return NOTHING.model_copy(update={"completion_id": name, "preference": preference, "judge": judge})


def speed() -> Found:
    """Return how many scored requests a second one core counts in an open trial, and beside none."""
    rng, draw = np.random.default_rng(1), answer(0.05)
    items = [_item("new" if n % 5 == 0 else "old", n, **draw(rng)) for n in range(2_000)]
    result: Found = {}
    for name, state in (("in an open trial", _begun()), ("without a trial", trials.new())):
        spec = RolloutSpec(canary=CanaryPolicy(margin=0.001))  # too little for it to end
        start = time.process_time()
        for item in items:
            trials.count(state, item, spec)
        result[name] = round(len(items) / (time.process_time() - start))
    return result


def _begun() -> trials.Trials:
    state = trials.new()
    trials.follow(state, _step(Stage.EVALUATED, Stage.CANARY))
    return state


def _step(source: Stage, to: Stage) -> Any:
    data = ModelPromoted(
        project="p", model_id="new", from_stage=source, to_stage=to, cause="c", reason="r", generation=1
    )
    return new_event(data, source="/bench", time=AT)


def _item(model: str, second: int, **more: Any) -> InferenceScored:
    role = RouteRole.CANARY if model == "new" else RouteRole.PRODUCTION
    name = f"{model}-{second}"
    values: dict[str, Any] = {
        "project": "p", "completion_id": name, "scored": name, "model_id": model, "role": role,
        "at": AT + timedelta(seconds=second),
    }  # fmt: skip
    return InferenceScored.model_construct(**(values | more))


if __name__ == "__main__":
    main()
