"""Sums a project up in a few words and figures."""

from __future__ import annotations

from typing import Any

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.lifecycle import Stage

from tunewheel_wheel.describing import describe
from tunewheel_wheel.turn import TurnEnd, TurnStage
from tunewheel_wheel.wheel import Wheel

PLACES = {
    TurnStage.BUILDING: "building a dataset",
    TurnStage.WAITING: "waiting for training",
    TurnStage.TRAINING: "training",
    TurnStage.EVALUATING: "evaluating",
    TurnStage.REVIEW: "waiting for a review",
    TurnStage.UNDECIDED: "undecided, waiting for a trial",
    TurnStage.PASSED: "passed, rolling out",
    TurnStage.SHADOW: "shadow",
    TurnStage.CANARY: "canary",
    TurnStage.PRODUCTION: "serving",
}
ENDS = {
    TurnEnd.NO_VERSION: "dataset rejected, collecting records",
    TurnEnd.UNTRAINED: "training failed",
    TurnEnd.FAILED: "refused, collecting records",
    TurnEnd.UNDECIDED: "undecided, collecting records",
    TurnEnd.REJECTED: "rejected, collecting records",
    TurnEnd.ROLLED_BACK: "rolled back, collecting records",
    TurnEnd.RETIRED: "ended without a rollout, collecting records",
    TurnEnd.REPLACED: "taken out of production, collecting records",
    TurnEnd.COMPLETED: "serving",
}


def place_in_words(wheel: Wheel) -> str:
    """Return where the project is; empty: it was never declared."""
    course = wheel.place
    if course is None:
        return "collecting records" if wheel.facts.declared else ""
    if getattr(course.event.data, "awaits_index", False):
        return "waiting for the first index of its documents"
    if (held := getattr(course.event.data, "held", None)) is not None:
        return f"{held} waits for a person"
    return PLACES[course.stage] if course.end is None else ENDS.get(course.end, "")


def latest_of(wheel: Wheel) -> Envelope[Any] | None:
    """Return the event that brought the project to its place, or the latest step of its training."""
    course = wheel.place
    return (course.progress or course.event) if course else wheel.facts.declared


def last_in_words(wheel: Wheel) -> str:
    """Return ``latest_of`` in words."""
    event = latest_of(wheel)
    return f"{event.data.type} {describe(event)}" if event else ""


def counts_of(wheel: Wheel) -> dict[str, int]:
    """Return how many versions, runs, promoted models and alarms there were."""
    facts = wheel.facts
    return {
        "datasets": len(facts.first_requests),
        "runs": len(facts.starts),
        "promoted": len(facts.models.been_in(Stage.PRODUCTION)),
        "drifts": len(facts.alarms),
    }
