"""Determines a project's place on the wheel from events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import (
    DatasetRejected,
    DatasetRequested,
    DatasetVersioned,
    RecordIngested,
)
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed, EvalUndecided, ReviewRequested
from tunewheel_contracts.events.lifecycle import ModelPromoted, ModelRolledback, Stage
from tunewheel_contracts.events.production import DriftDetected, InferenceCompleted, RolloutJudged
from tunewheel_contracts.events.training import (
    TrainAction,
    TrainCompleted,
    TrainControl,
    TrainFailed,
    TrainProgressed,
    TrainStarted,
)
from tunewheel_contracts.events.upstream import ProjectDeclared


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


RESTING = (None, Step.INGEST, Step.SERVE, Step.MONITOR)
"""The steps between turns. Traffic and alarms move a project only from these, never out of a turn."""
_SERVED = (Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION)


def place_after(place: Place | None, envelope: Envelope[Any]) -> Place | None:
    """Return the place after ``envelope``. Events older than the current place do not move it."""
    if place is not None and envelope.time < place.at:
        return place
    moved = _by_traffic(place, envelope.data) or _by_turn(envelope.data)
    return Place(*moved, envelope.time) if moved else place


def says_the_same(one: Place | None, other: Place | None) -> bool:
    """Return whether both have the same step and text, at whatever time."""
    if one is None or other is None:
        return one is other
    return (one.step, one.note, one.tone) == (other.step, other.note, other.tone)


def _by_traffic(place: Place | None, data: Any) -> tuple[Step, str, Tone] | None:
    step = place.step if place else None
    match data:
        case RecordIngested() if step in (None, Step.INGEST):
            return Step.INGEST, "records arrive", "working"
        case InferenceCompleted() if step in RESTING:
            return Step.MONITOR, "watches the answers", "working"
        case DriftDetected() if step in RESTING:
            return Step.MONITOR, f"{data.signal or data.detector} drift", "refused"
        case _:
            return None


def _by_turn(data: Any) -> tuple[Step, str, Tone] | None:
    match data:
        case ProjectDeclared():
            return Step.INGEST, "declared", "waiting"
        case DatasetRequested(awaits_index=True):
            return Step.CURATE, "waits for the first index of its documents", "waiting"
        case DatasetRequested():
            return Step.CURATE, f"builds a version ({data.reason.value})", "working"
        case DatasetRejected():
            return Step.CURATE, "; ".join(data.reasons), "refused"
        case DatasetVersioned():
            return Step.TRAIN, f"{data.counts.train} examples wait", "waiting"
        case TrainFailed(superseded_by=str()):
            return None  # the newer version has the project
        case TrainStarted() | TrainProgressed() | TrainFailed() | TrainCompleted():
            return _training(data)
        case TrainControl(action=TrainAction.PAUSE):
            return Step.TRAIN, "is paused", "waiting"
        case EvalPassed():
            return Step.REGISTRY, "passed its evaluation", "working"
        case EvalFailed():
            return Step.EVAL, "; ".join(data.reasons), "refused"
        case EvalUndecided():
            return Step.EVAL, "undecided: " + "; ".join(data.reasons), "waiting"
        case ReviewRequested():
            return Step.EVAL, "waits for a person", "waiting"
        case ModelPromoted() | ModelRolledback() | RolloutJudged():
            return _rollout(data)
        case _:
            return None


def _training(
    data: TrainStarted | TrainProgressed | TrainFailed | TrainCompleted,
) -> tuple[Step, str, Tone]:
    match data:
        case TrainStarted():
            return Step.TRAIN, f"starts {data.total_steps} steps", "working"
        case TrainProgressed():
            return Step.TRAIN, f"step {data.step} of {data.total_steps}, loss {data.loss:.3f}", "working"
        case TrainFailed():
            return Step.TRAIN, f"{data.field}: {data.reason}", "refused"
        case TrainCompleted():
            return Step.EVAL, "measures the candidate", "working"


def _rollout(data: ModelPromoted | ModelRolledback | RolloutJudged) -> tuple[Step, str, Tone] | None:
    match data:
        case ModelRolledback():
            return Step.SERVE, f"rolled back: {data.reason}", "refused"
        case RolloutJudged():
            return Step.REGISTRY, f"{data.stage} {data.verdict}", "working"
        case ModelPromoted() if data.to_stage in _SERVED:
            tone: Tone = "done" if data.to_stage is Stage.PRODUCTION else "working"
            return Step.SERVE, f"{data.to_stage.value}: {data.model_id}", tone
        case _:
            return None
