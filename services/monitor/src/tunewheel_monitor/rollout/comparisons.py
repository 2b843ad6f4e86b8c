"""Whether a candidate's answers are right: in shadow, by pairs of answers to the same question.

The *loss* is the share of questions that the candidate answers worse than the champion, minus the share that
it answers better. Most pairs say the same, and need nobody's time: the loss is the share of pairs that differ
times the mean loss of such a pair (1 worse, 0 the same, -1 better). The share is counted; the mean is told by
people, about pairs that are drawn from those that differ. So forty answers of people say as much as some two
hundred about pairs drawn from all.

Only drawn pairs count, with the first person's answer. Corrections by users, and experts' answers to prompts
of an alarm, do not: users correct what they saw, which was the champion's, and an alarm's prompts are those
that the candidate was trained for.

A judge (a model that compares) errs in ways that only people can measure. So its values never count alone:
a person's value H, with the judge's J of the same pair, and the mean M of the judge's values of up to
``SPARES`` pairs that nobody else compares, give ``H - LAMBDA * J + LAMBDA * M``. Its expectation is that of H
whatever the judge's error is, and its variance is smaller where the judge often agrees (Angelopoulos et al.,
"Prediction-powered inference", Science 382, 2023). One confidence sequence bounds the mean of all of them.
Two, of ``H - LAMBDA * J`` and of ``J``, would be wider than people's answers without the judge's.

The ends of the loss hold at any time, like those of the other figures (``sequences``).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.evaluation import AnswersCompared
from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.events.production import RolloutBound
from tunewheel_contracts.fields import shared
from tunewheel_contracts.formats.serving import RouteRole

from tunewheel_monitor.rollout.sequences import Stakes, is_above, is_below, key, lower, mean, shares, upper

Comparisons = dict[str, Any]
"""``differ``: [pairs that differ, all pairs]. ``against``: the champion. ``drawn``: by the champion's
completion, the pair's ``number``, the values that ``person`` and ``judge`` gave, and whether the judge's is
``spent``.
``fresh``: the log positions of pairs that no request names yet. ``revision``: of the latest request.
``values``: how often each value occurred, divided by ``widest``. ``widest``: the largest value that is
possible; 0: nothing was compared yet. ``judge``: hash of the judge that counts."""
End = Literal["failed", "passed", "no gain"]
NAME = "answers"
"""The name of this figure in verdicts."""
LOSSES = {"worse": 1.0, "same": 0.0, "better": -1.0}
QUALITY_BETA = 0.01
"""The probability that a candidate whose loss is as large as is tolerated ever passes."""
NO_GAIN_BETA = 0.025
"""The probability that the trial of a candidate that is better by the margin ever ends without a gain."""
SHARE_PART = 0.1
"""The part of an error probability for the share of pairs that differ; the mean has the rest. Half of this
part is for each end of the share."""
LAMBDA = 0.4
"""The weight of the judge. It is fixed: one that is fitted to the values would need values of its own. A
larger one would let values range so widely that less could be staked on each."""
STAKES = (0.3, 0.53)
"""The stakes on people's values. Those of other figures range over everything that thousands of requests may
show; here some forty values decide, and each further stake costs some of them. They grow with ``widest``."""
SPARES = 4
PEOPLES = 40
"""The first so many pairs are for people; the judge's values of later ones may be spent."""
MOST_DRAWN = 200
"""Pairs are drawn as they come: which are drawn does not depend on which answer is right. 200 are far more
than people compare in a trial, and none of them is dropped, so a late answer finds its pair."""
FIRST_REQUEST = 5
LARGEST_REQUEST = 20


def new_comparisons() -> Comparisons:
    return {
        "differ": [0, 0], "against": "", "drawn": {}, "fresh": {}, "revision": 0, "values": {}, "widest": 0.0,
        "judge": None,
    }  # fmt: skip


def scored(event: Envelope[AnswersCompared]) -> InferenceScored:
    """Return the score by which a comparison reaches the state of its project."""
    return InferenceScored(
        **shared(InferenceScored, event.data),
        scored=event.id,
        of="comparison",
        role=RouteRole.SHADOW,
        at=event.time,
    )


def see(state: Comparisons, name: str, candidate: dict[str, Any], champion: dict[str, Any]) -> bool:
    """Count a pair of answers to the question of the champion's completion ``name``, and draw it if they
    differ. A pair without labels or texts does not count."""
    answers = candidate.get("answer"), champion.get("answer")
    if None in answers:
        return False
    differs = answers[0] != answers[1]
    state["differ"][0] += differs
    state["differ"][1] += 1
    places = champion.get("place"), candidate.get("place")
    if differs and len(state["drawn"]) < MOST_DRAWN and None not in places:
        state["against"] = champion["model_id"]
        number = len(state["drawn"])  # two are equal only if one before them was erased, which does no harm
        state["drawn"][name] = {"number": number, "person": None, "judge": None, "spent": False}
        state["fresh"][name] = list(places)
    return True


def compare(state: Comparisons, item: InferenceScored) -> bool:
    """Add a comparison of a drawn pair. Return whether this added evidence."""
    pair, loss = state["drawn"].get(item.completion_id), LOSSES.get(item.preference or "")
    if pair is None or loss is None:
        return False
    if item.judge is not None:
        if not state["widest"]:  # later, its values would change the range of values that were counted
            state["judge"], state["widest"] = item.judge, 1 + 2 * LAMBDA
        if item.judge == state["judge"] and pair["judge"] is None and pair["person"] is None:
            pair["judge"] = loss
        return False
    if pair["person"] is not None or pair["spent"]:
        return False
    pair["person"] = loss
    state["widest"] = state["widest"] or 1.0
    value = key(_corrected(state, pair) / state["widest"])
    state["values"][value] = state["values"].get(value, 0) + 1
    return True


def take_fresh(state: Comparisons) -> dict[str, list[Any]]:
    """Return the pairs for a new revision of the request, by name, and forget their positions; empty: too few
    are new. The first request is small, for projects with little traffic."""
    fresh, requested = state["fresh"], len(state["drawn"]) - len(state["fresh"])
    if len(fresh) < min(LARGEST_REQUEST, max(FIRST_REQUEST, requested)):
        return {}
    state["fresh"], state["revision"] = {}, state["revision"] + 1
    return {name: fresh[name] for name in drawn(state) if name in fresh}


def drawn(state: Comparisons) -> list[str]:
    """Return the names of the drawn pairs, in the order in which they were drawn."""
    return sorted(state["drawn"], key=lambda name: state["drawn"][name]["number"])


def for_people(state: Comparisons) -> int:
    """Return how many of the drawn pairs, from the first on, are for people. An erasure moves no later pair
    among them: its judgement may be spent."""
    return sum(pair["number"] < PEOPLES for pair in state["drawn"].values())


def compared(state: Comparisons) -> dict[str, int]:
    """Return how many pairs people called better, the same and worse."""
    told = [pair["person"] for pair in state["drawn"].values()]
    return {preference: told.count(loss) for preference, loss in LOSSES.items()}


def awaits_people(state: Comparisons) -> bool:
    """Return whether people were asked about pairs, and have not compared as many as are for them."""
    return sum(compared(state).values()) < min(for_people(state), len(state["drawn"]) - len(state["fresh"]))


def loss(state: Comparisons) -> float:
    """Return the estimate of the loss; 0 if nothing was compared."""
    hits, of = state["differ"]
    return hits / max(of, 1) * state["widest"] * mean(state["values"])


def highest(state: Comparisons, alpha: float) -> float:
    """Return the upper end of the loss. The loss is ever above it with a probability of at most ``alpha``.
    Without comparisons every pair that differs may be worse."""
    part, widest = alpha * (1 - SHARE_PART), state["widest"] or 1.0
    end = min(widest * upper(state["values"], part, _stakes(state)), 1.0)
    return end * _share(state, alpha, largest=end > 0)


def lowest(state: Comparisons, alpha: float) -> float:
    """Return the lower end of the loss, like ``highest``."""
    part, widest = alpha * (1 - SHARE_PART), state["widest"] or 1.0
    end = max(widest * lower(state["values"], part, _stakes(state)), -1.0)
    return end * _share(state, alpha, largest=end < 0)


def _stakes(state: Comparisons) -> Stakes:
    return tuple(stake * max(state["widest"], 1.0) for stake in STAKES)


@lru_cache(maxsize=64)
def _end_of_share(hits: int, of: int, part: float, largest: bool) -> float:
    return upper(shares(hits, of), part) if largest else max(lower(shares(hits, of), part), 0.0)


def _share(state: Comparisons, alpha: float, *, largest: bool) -> float:
    """Return the largest or the smallest share of pairs that may differ."""
    return _end_of_share(*state["differ"], alpha * SHARE_PART / 2, largest)


def is_shown(state: Comparisons, to_show: float) -> bool:
    """Return whether the candidate is shown to be better than the champion by more than ``to_show``. The
    probability that this is ever wrong is ``QUALITY_BETA``."""
    share = _share(state, QUALITY_BETA, largest=to_show < 0)
    limit = -to_show / share if share else -1.0
    part = QUALITY_BETA * (1 - SHARE_PART)
    return limit > 1 or is_below(state["values"], limit / (state["widest"] or 1.0), part, _stakes(state))


def has_no_gain(state: Comparisons, margin: float) -> bool:
    """Return whether the candidate is shown to be better by less than ``margin``, which may be nothing. The
    probability that this is ever wrong is ``NO_GAIN_BETA``."""
    limit = -margin / _share(state, QUALITY_BETA, largest=True)
    part = NO_GAIN_BETA * (1 - SHARE_PART)
    return limit < -1 or is_above(state["values"], limit / (state["widest"] or 1.0), part, _stakes(state))


def is_harmed(state: Comparisons, least: float, alpha: float) -> bool:
    """Return whether the loss is shown to be above 0, and was observed to be ``least`` or more."""
    if loss(state) < least or not is_above(state["values"], 0.0, alpha, _stakes(state)):  # cheap ones first
        return False
    return lowest(state, alpha) > 0


def end(state: Comparisons, to_show: float | None, *, margin: float, alpha: float) -> End | None:
    """Return what the comparisons say of the trial; None: nothing yet. Without ``to_show`` it is enough that
    no harm is shown, which ``alpha`` bounds."""
    if is_harmed(state, margin / 2, alpha):
        return "failed"
    if to_show is None or is_shown(state, to_show):
        return "passed"
    return "no gain" if has_no_gain(state, margin) else None


def bound(state: Comparisons, *, margin: float, alpha: float) -> RolloutBound:
    told, (hits, of) = compared(state), state["differ"]
    each = hits / of / max(sum(told.values()), 1)
    return RolloutBound(
        figure=NAME,
        candidate=each * told["worse"],
        champion=each * told["better"],
        low=lowest(state, alpha),
        high=highest(state, QUALITY_BETA),
        margin=margin,
        pairs=sum(told.values()),
    )


def sentence(state: Comparisons, alpha: float | None = None) -> str:
    """Return in words what was compared, with the upper end of the loss; with ``alpha``: its lower end."""
    told, (hits, of) = compared(state), state["differ"]
    end = highest(state, QUALITY_BETA) if alpha is None else lowest(state, alpha)
    limit = "most" if (alpha is None) == (end >= 0) else "least"
    return (
        f"answers: worse in {told['worse']} and better in {told['better']} of {sum(told.values())} judged "
        f"pairs; {hits / max(of, 1):.0%} of answers differ: {'loses' if end >= 0 else 'wins'} at {limit} "
        f"{abs(end):.1%} of questions"
    )


def missing(state: Comparisons, to_show: float | None) -> list[str]:
    """Return in words what is not shown, and who can show it."""
    if to_show is None or is_shown(state, to_show):
        return []
    least = f"better by more than {to_show:.1%}" if to_show >= 0 else f"worse by less than {-to_show:.1%}"
    wanted = f"the evaluation was undecided, and answers are not shown to be {least} of questions"
    if not state["differ"][1]:
        return [f"{wanted}: no pairs of answers were seen; the log must hold their texts (serving.log)"]
    few = "" if any(compared(state).values()) else "no differing pair was compared by a person: "
    return [f"{wanted}: {few}use `tunewheel review list`, or the reviews in the console", sentence(state)]


def _corrected(state: Comparisons, pair: dict[str, Any]) -> float:
    """Return a person's value, corrected by the judge's values of this pair and of spare pairs."""
    later = [state["drawn"][name] for name in drawn(state)[for_people(state) :]]
    free = [one for one in later if one["person"] is None and one["judge"] is not None and not one["spent"]]
    spares = free[-SPARES:]
    if pair["judge"] is None or not spares:
        return pair["person"]
    for one in spares:
        one["spent"] = True
    return pair["person"] + LAMBDA * (sum(one["judge"] for one in spares) / len(spares) - pair["judge"])
