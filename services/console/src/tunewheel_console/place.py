"""Shows a project's place among the services, by the course of its latest version and by traffic."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import RecordIngested
from tunewheel_contracts.events.production import DriftDetected, InferenceCompleted
from tunewheel_wheel.turn import Course, TurnEnd, TurnStage


class Step(StrEnum):
    """The services that a turn passes through, in order."""

    INGEST = "ingest"
    CURATE = "curate"
    TRAIN = "train"
    EVAL = "eval"
    REGISTRY = "registry"
    SERVE = "serve"
    MONITOR = "monitor"


Tone = Literal["working", "done", "waiting", "refused"]


@dataclass(frozen=True, slots=True)
class Place:
    """The step at which the project is, and what happens there."""

    step: Step
    note: str
    tone: Tone
    at: datetime


RESTING = (Step.INGEST, Step.SERVE, Step.MONITOR)
"""The steps between turns. Traffic and alarms move a project only from these, never out of a turn."""


def place_of(course: Course, *, paused: bool = False) -> Place:
    """Return the place of a version. ``paused``: a person paused its run."""
    event = course.progress or course.event
    if course.end not in (None, TurnEnd.COMPLETED):
        return Place(*_ended(course), event.time)
    if paused and course.stage is TurnStage.TRAINING:
        return Place(Step.TRAIN, "is paused", "waiting", event.time)
    return Place(*_going_on(course), event.time)


def place_by_traffic(envelope: Envelope[Any]) -> Place | None:
    """Return the place to which an event of the traffic brings a project that rests."""
    match envelope.data:
        case RecordIngested():
            return Place(Step.INGEST, "records arrive", "working", envelope.time)
        case InferenceCompleted():
            return Place(Step.MONITOR, "watches the answers", "working", envelope.time)
        case DriftDetected() as data:
            note = f"{data.signal or data.detector} drift"
            return Place(Step.MONITOR, note, "refused", envelope.time)
        case _:
            return None


def _going_on(course: Course) -> tuple[Step, str, Tone]:
    data = course.event.data
    match course.stage:
        case TurnStage.BUILDING if data.awaits_index:
            return Step.CURATE, "waits for the first index of its documents", "waiting"
        case TurnStage.BUILDING:
            return Step.CURATE, f"builds a version ({data.reason.value})", "working"
        case TurnStage.WAITING:
            return Step.TRAIN, f"{data.counts.train} examples wait", "waiting"
        case TurnStage.TRAINING if course.progress is not None:
            step = course.progress.data
            return Step.TRAIN, f"step {step.step} of {step.total_steps}, loss {step.loss:.3f}", "working"
        case TurnStage.TRAINING:
            return Step.TRAIN, f"starts {data.total_steps} steps", "working"
        case TurnStage.EVALUATING:
            return Step.EVAL, "measures the candidate", "working"
        case TurnStage.REVIEW:
            return Step.EVAL, "waits for a person", "waiting"
        case TurnStage.UNDECIDED:
            return Step.REGISTRY, "waits for a trial: its evaluation was undecided", "waiting"
        case TurnStage.PASSED:
            return Step.REGISTRY, "passed its evaluation", "working"
        case TurnStage.PRODUCTION:
            return Step.SERVE, f"production: {course.model_id}", "done"
        case TurnStage.SHADOW | TurnStage.CANARY as stage:
            return Step.SERVE, f"{stage.value}: {course.model_id}", "working"


def _ended(course: Course) -> tuple[Step, str, Tone]:
    data = course.event.data
    reason = "; ".join(data.reasons) if hasattr(data, "reasons") else str(data.reason)
    match course.end:
        case TurnEnd.NO_VERSION:
            return Step.CURATE, reason, "refused"
        case TurnEnd.UNTRAINED:
            return Step.TRAIN, f"{data.field}: {reason}", "refused"
        case TurnEnd.UNDECIDED:
            return Step.EVAL, f"undecided: {reason}", "waiting"
        case TurnEnd.ROLLED_BACK:
            return Step.SERVE, f"rolled back: {reason}", "refused"
        case TurnEnd.RETIRED | TurnEnd.REPLACED:
            return Step.SERVE, f"retired: {reason}", "refused"
        case _:
            return Step.EVAL, reason, "refused"
