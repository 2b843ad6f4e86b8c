"""Determines each project's place on the wheel from its events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.topics import TopicSpec
from tunewheel_contracts.turn_report import as_json
from tunewheel_contracts.turn_status import TOPICS as TURN_TOPICS
from tunewheel_contracts.turn_status import TurnStatus

from tunewheel_cli.describing import describe

SHOWN: tuple[TopicSpec, ...] = (*TURN_TOPICS, topics.SERVING_DESIRED, topics.ROLLOUT_JUDGED)
"""The topics from which a status is made. An alarm does not move a project, because curate decides about it.
Busy topics (tickets, records, completions) do not move one either."""

ENDED = "ended without a rollout, collecting records"
_PLACES = {
    topics.PROJECT_DECLARED.name: "collecting records",
    topics.DATASET_REQUESTED.name: "building a dataset",
    topics.DATASET_VERSIONED.name: "waiting for training",
    topics.DATASET_REJECTED.name: "dataset rejected, collecting records",
    topics.TRAIN_STARTED.name: "training",
    topics.TRAIN_PROGRESSED.name: "training",
    topics.TRAIN_COMPLETED.name: "evaluating",
    topics.TRAIN_FAILED.name: "training failed",
    topics.EVAL_PASSED.name: "passed, rolling out",
    topics.EVAL_FAILED.name: "refused, collecting records",
    topics.EVAL_UNDECIDED.name: "undecided, collecting records",
    topics.REVIEW_REQUESTED.name: "waiting for a review",
    topics.MODEL_ROLLEDBACK.name: "rolled back, collecting records",
    topics.ROLLOUT_JUDGED.name: "rollout judged",
}


@dataclass(slots=True)
class ProjectStatus:
    """One project: its place on the wheel, the model in production, and its last events."""

    project: str
    place: str = ""
    since: datetime | None = None
    last: str = ""
    serving: str = "nothing"
    datasets: set[str] = field(default_factory=set)
    runs: set[str] = field(default_factory=set)
    promoted: set[str] = field(default_factory=set)
    drifts: set[str] = field(default_factory=set)
    turns: TurnStatus = field(default_factory=TurnStatus)

    def apply(self, envelope: Envelope[Any]) -> None:
        event, name = envelope.data, envelope.data.type
        self.turns.apply(envelope)
        if getattr(event, "superseded_by", None):
            return  # the newer version has the project
        if name == topics.DATASET_VERSIONED.name:
            self.datasets.add(event.dataset_id)
        elif name == topics.TRAIN_STARTED.name:
            self.runs.add(event.run_id)
        elif name == topics.DRIFT_DETECTED.name:
            self.drifts.add(envelope.id)
        elif name == topics.SERVING_DESIRED.name:
            self.serving = describe(envelope)
            return
        if name == topics.MODEL_PROMOTED.name:
            if event.to_stage.value == "production":
                self.promoted.add(event.model_id)
            stage = event.to_stage.value
            place = {"production": "serving", "retired": ENDED}.get(stage, stage)
            # A model that was replaced or superseded does not move the project: another model has it now.
            by_itself = stage == "retired" and event.decided_by in ("rollout", "criteria")
            if stage in ("retired", "rejected", "evaluated") and not by_itself:
                return
        elif getattr(event, "awaits_index", False):
            place = "waiting for the first index of its documents"
        elif name in _PLACES:
            place = _PLACES[name]
        else:
            return
        self.place, self.since, self.last = place, envelope.time, f"{name} {describe(envelope)}"

    def as_json(self) -> dict[str, Any]:
        """Return the status for machines."""
        return {
            "project": self.project,
            "place": self.place,
            "since": self.since,
            "last": self.last,
            "serving": self.serving,
            "datasets": len(self.datasets),
            "runs": len(self.runs),
            "promoted": len(self.promoted),
            "drifts": len(self.drifts),
            "turns": as_json(self.turns, datetime.now(UTC)),
        }


def fold(events: Iterable[Envelope[Any]]) -> dict[str, ProjectStatus]:
    """Return the status of every declared project. Events are applied in the order of their time."""
    found: dict[str, ProjectStatus] = {}
    for envelope in sorted(events, key=lambda e: e.time):
        found.setdefault(envelope.project, ProjectStatus(envelope.project)).apply(envelope)
    return {name: status for name, status in found.items() if status.place}
