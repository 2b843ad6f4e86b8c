"""Counts a scored completion or rating in the figures of a trial."""

from __future__ import annotations

from typing import Any, Literal

from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.events.production import ABSTAINED
from tunewheel_contracts.formats.rollout_spec import StagePolicy
from tunewheel_contracts.formats.serving import RouteRole

from tunewheel_monitor.detectors.votes import is_first
from tunewheel_monitor.rollout import comparisons
from tunewheel_monitor.rollout.figures import (
    FIGURES,
    Side,
    against,
    compare,
    compare_times,
    new_figure,
    observe,
    observe_time,
)

Trial = dict[str, Any]
"""The state of one stage of one candidate, or of its guard. Times are seconds since 1970.

- ``candidate``, ``champion``: the counts of each side
- ``figures``: see ``figures.py``
- ``waiting``: answers whose copy or original was not seen yet
- ``comparisons``: see ``comparisons.py``
- ``to_show``: by how much the candidate must be shown to answer better than the champion; None: need not be
- ``let_off``: since when nothing need be shown any more; None: since it began, or it must be shown
- ``users``: a mark for each counted user
- ``reference``: for a guard, by figure, the champion's share in the trial and its upper bound. None: there
  was no champion, and the spec's limits are used.
- ``verdict``: None, or ``verdict``, ``decided_by`` and ``reasons``
"""
WAITING = 128
"""The most answers that wait for their pair. While so many wait, further ones are left out. None is dropped
for being slow, which would bias the comparison."""
PATIENCE = 60.0
"""The longest time in seconds that an answer waits. Most requests have no copy, and a copy may be lost."""
GUARDED = ("errors", "invalid", "feedback", "labels")
"""The figures that do not depend on the load."""


def new_trial(
    *,
    stage: Literal["shadow", "canary"],
    since: float,
    generation: int,
    correlation_id: str | None,
    guard: bool = False,
    reference: dict[str, Any] | None = None,
    to_show: float | None = None,
) -> Trial:
    """Return a trial without any counts."""
    return {
        "stage": stage,
        "since": since,
        "generation": generation,
        "correlation_id": correlation_id,
        "guard": guard,
        "reference": reference,
        "candidate": {"requests": 0, "answers": 0, "overridden": 0},
        "champion": {"requests": 0, "answers": 0, "overridden": 0},
        "figures": {name: new_figure() for name in FIGURES},
        "waiting": {},
        "comparisons": comparisons.new_comparisons(),
        "to_show": to_show,
        "let_off": None,
        "users": {},
        "verdict": None,
    }


def count_beside(
    trial: Trial, model_id: str, item: InferenceScored, policy: StagePolicy, *, alone: bool
) -> bool:
    """Count ``item`` if it belongs to the candidate, or to the champion during the trial. Return whether this
    added evidence."""
    side = _side(trial, model_id, item)
    if side is None or (alone and side == "champion"):
        return False
    if item.of == "comparison":
        return comparisons.compare(trial["comparisons"], item)
    if item.of == "rating":
        return not alone and _rate(trial, side, item, policy)
    if not _counts(item):
        return False
    _tally(trial[side], item)
    another, grew = _is_another(trial, side, item, policy), False
    if another:
        grew = _count_alone(trial, item) if alone else _count_failure(trial["figures"], side, item)
    if alone or (not another and side == "candidate"):
        return grew
    if trial["stage"] == "shadow":  # the copy decides whether a pair counts
        return _pair(trial, side, item, policy.max_slowdown) or grew
    if another and item.outcome == "answered":
        grew |= _count_answer(trial["figures"], side, item, policy.max_slowdown)
    return grew


def count_guarded(trial: Trial, model_id: str, item: InferenceScored, policy: StagePolicy) -> bool:
    """Count ``item`` if it belongs to the guarded model. Return whether this added evidence."""
    if item.role is not RouteRole.PRODUCTION or item.model_id != model_id:
        return False
    if item.of == "completion":
        if not _counts(item) or item.fault == "engine":
            return False
        _tally(trial["candidate"], item)
    if not _is_another(trial, item.of, item, policy):
        return False
    grew = False
    for name, value in _observations(item).items():
        if name in GUARDED:
            grew |= against(trial["figures"][name], value, 0.0)
    return grew


def _side(trial: Trial, model_id: str, item: InferenceScored) -> Side | None:
    if item.model_id == model_id:
        return "candidate" if item.role.value == trial["stage"] else None
    return "champion" if item.role is RouteRole.PRODUCTION else None


def _counts(item: InferenceScored) -> bool:
    """Return whether the request counts. It does not if the client left or caused the failure."""
    return item.outcome != "cancelled" and item.fault != "client"


def _tally(tally: dict[str, int], item: InferenceScored) -> None:
    tally["requests"] += item.fault != "engine"
    tally["answers"] += item.outcome == "answered"
    theirs = set(item.overrides) - {ABSTAINED}
    tally["overridden"] += item.outcome == "answered" and bool(theirs)


def _is_another(trial: Trial, whose: str, item: InferenceScored, policy: StagePolicy) -> bool:
    """Return whether ``item`` is a new observation. Requests without a user always are."""
    return not policy.one_per_user or is_first(trial["users"].setdefault(whose, []), item.user)


def _rate(trial: Trial, side: Side, item: InferenceScored, policy: StagePolicy) -> bool:
    grew = False
    if not _is_another(trial, f"{side}'s raters", item, policy):
        return grew
    for name, value in _observations(item).items():
        grew |= observe(trial["figures"][name], side, value)
    return grew


def _count_alone(trial: Trial, item: InferenceScored) -> bool:
    """Count a request of a candidate without a champion. Failures of the engine count, as they may be its
    fault."""
    grew = against(trial["figures"]["errors"], float(item.outcome == "failed"), 0.0)
    invalid = _observations(item).get("invalid")
    return grew if invalid is None else against(trial["figures"]["invalid"], invalid, 0.0)


def _count_failure(figures: dict[str, Any], side: Side, item: InferenceScored) -> bool:
    """Count whether a request failed, and what caused it. Requests of both sides count by themselves, in
    shadow too: requests on which the champion fails are not copied, so pairs would show only the candidate's
    failures."""
    grew = observe(figures["incidents"], side, float(item.fault == "engine"))
    if item.fault != "engine":
        grew |= observe(figures["errors"], side, float(item.outcome == "failed"))
    return grew


def _count_answer(figures: dict[str, Any], side: Side, item: InferenceScored, slowdown: float) -> bool:
    grew = False
    invalid = _observations(item).get("invalid")
    if invalid is not None:
        grew |= observe(figures["invalid"], side, invalid)
    for name, seconds in (("latency", item.latency_seconds), ("first_token", item.first_token_seconds)):
        if seconds is not None:
            grew |= observe_time(figures[name], side, seconds, slowdown)
    return grew


def _observations(item: InferenceScored) -> dict[str, float]:
    """Return the observations of ``item``, 1 for bad. If the client replaced parts of the project's prompt,
    the answer does not count."""
    shown: dict[str, float] = {}
    if item.of == "completion":
        shown["errors"] = float(item.outcome == "failed")
        if item.outcome == "answered" and item.format_valid is not None and not item.overrides:
            shown["invalid"] = float(not item.format_valid)
    elif not item.overrides:
        if item.rating is not None:
            shown["feedback"] = float(item.rating == "down")
        if item.agrees is not None:
            shown["labels"] = float(not item.agrees)
    return shown


def _pair(trial: Trial, side: Side, item: InferenceScored, slowdown: float) -> bool:
    """Compare the answers of both sides to the same question, once both are there."""
    name = item.completion_id if side == "champion" else item.shadow_of
    waiting: dict[str, Any] = trial["waiting"]
    if name is None:
        return False
    other = waiting.get(name)
    if item.outcome != "answered":
        waiting.pop(name, None)
        return False
    mine = _told(side, item)
    if other is not None and other["side"] != side:
        del waiting[name]
        first, second = (mine, other) if side == "candidate" else (other, mine)
        grew = comparisons.see(trial["comparisons"], name, first, second)
        return _compare(trial["figures"], first, second, slowdown) or grew
    if other is None and _has_room(waiting, mine["at"]):
        waiting[name] = mine
    return False


def _told(side: Side, item: InferenceScored) -> dict[str, Any]:
    return {
        "side": side,
        "at": item.at.timestamp(),
        "invalid": _observations(item).get("invalid"),
        "latency": item.latency_seconds,
        "first_token": item.first_token_seconds,
        "label": None if item.overrides else item.label,
        "answer": None if item.overrides else item.label or item.answer,
        "model_id": item.model_id,
        "place": item.position and [item.position.partition, item.position.offset],
    }


def _has_room(waiting: dict[str, Any], now: float) -> bool:
    if len(waiting) >= WAITING:
        for name in [name for name, one in waiting.items() if now - one["at"] > PATIENCE]:
            del waiting[name]
    return len(waiting) < WAITING


def _compare(
    figures: dict[str, Any], candidate: dict[str, Any], champion: dict[str, Any], slowdown: float
) -> bool:
    grew = False
    if None not in (candidate["invalid"], champion["invalid"]):
        grew |= compare(figures["invalid"], candidate["invalid"], champion["invalid"])
    for name in ("latency", "first_token"):
        if None not in (candidate[name], champion[name]):
            grew |= compare_times(figures[name], candidate[name], champion[name], slowdown)
    if None not in (candidate["label"], champion["label"]):
        grew |= compare(figures["labels"], float(candidate["label"] != champion["label"]), 0.0)
    return grew
