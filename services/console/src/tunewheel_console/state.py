"""The console's state, folded from events. Pure: ``apply`` changes the state, and pages and the control API
show it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import DatasetRejected, DatasetVersioned, RecordIngested
from tunewheel_contracts.events.evaluation import ReviewAnswered
from tunewheel_contracts.events.monitoring import TurnCompleted, TurnDecided, WindowJudged
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.events.training import (
    TrainCompleted,
    TrainFailed,
    TrainProgressed,
    TrainStarted,
)
from tunewheel_contracts.events.upstream import FeedbackReceived, ProjectDeclared
from tunewheel_contracts.topics import PROJECT_DECLARED, SERVING_DESIRED, TopicSpec

from tunewheel_console.commands import Commands
from tunewheel_console.place import place_by_traffic
from tunewheel_console.project import Project

_REPEATED = (
    ProjectDeclared,
    DatasetVersioned,
    DatasetRejected,
    TrainStarted,
    TrainCompleted,
    TrainFailed,
    TurnCompleted,
    TurnDecided,
)
"""Events that may occur again under the same id: a spec is declared again after another one, the same records
are asked for twice, a run is trained again, or a decision is repeated."""


@dataclass
class ConsoleState:
    """The state of all projects. ``version`` grows with every change, so that a page knows when to draw
    again."""

    projects: dict[str, Project] = field(default_factory=dict[str, Project])
    commands: Commands = field(default_factory=Commands)
    dead_letters: dict[str, int] = field(default_factory=dict[str, int])
    """The number of dead letters, by original topic."""
    figures: dict[str, WindowJudged] = field(default_factory=dict[str, WindowJudged])
    """The newest figures of each detector, by ``figure_id``. They change all the time, and no page of a
    project's turns shows them."""
    version: int = 0
    _seen: set[str] = field(default_factory=set[str])
    _refused: set[str] = field(default_factory=set[str])

    def apply(self, envelope: Envelope[Any]) -> None:
        """Apply one event. The same event a second time changes nothing.

        Ids of topics that carry traffic are not remembered, because no id occurs twice in the part that is
        read.
        """
        self.commands.apply(envelope)
        data = envelope.data
        traffic = isinstance(data, RecordIngested | InferenceCompleted | FeedbackReceived)
        if not traffic and not isinstance(data, TrainProgressed | ReviewAnswered):
            seen = envelope.id
            if isinstance(data, _REPEATED):
                attempt = data.attempt if isinstance(data, TrainStarted | TrainFailed) else ""
                seen += f" {envelope.time} {envelope.causation_id} {attempt}"
            if seen in self._seen:
                return
            self._seen.add(seen)
        if envelope.id in self._refused:
            return
        project = self.projects.get(envelope.project)
        if project is None:
            project = self.projects[envelope.project] = Project(envelope.project)
        project.apply(envelope)
        if not traffic:
            project.wheel.apply(envelope)
        project.reviews.apply(envelope)
        project.labels.apply(envelope)
        place = place_by_traffic(envelope)
        moved = place is not None and project.see(place)
        if not traffic:
            project.settled = False
        project.version += moved or not traffic
        self.version += 1

    def judge(self, envelope: Envelope[WindowJudged]) -> None:
        """Keep the newest figures of a detector."""
        self.figures[envelope.data.figure_id] = envelope.data

    def detectors_of(self, project: Project) -> list[WindowJudged]:
        """Return the figures of a project's detectors. Those that the spec switches off are ``off``, also
        before the monitor has read the spec."""
        found = [one for one in self.figures.values() if one.project == project.name]
        drift = project.spec.drift if project.spec else None
        return [
            one
            if drift is not None and drift.enabled and drift.asks_for(one.detector, one.family)
            else one.model_copy(update={"state": "off"})
            for one in found
        ]

    def forget(self, topic: TopicSpec, project: str) -> None:
        """Apply a tombstone: ``project`` is not declared, or not served, any more."""
        view = self.projects.get(project)
        if view is None:
            return
        if topic is PROJECT_DECLARED:
            view.spec = None
        elif topic is SERVING_DESIRED:
            view.desired = None
        view.version += 1
        self.version += 1

    def refuse(self, envelope: Envelope[Any]) -> None:
        """Undo a review or a command that became a dead letter, because its sender had no right to it. The
        run still waits for a review, or goes on."""
        project = self.projects.get(envelope.project)
        self._refused.add(envelope.id)
        if project is not None and envelope.data.run_id in project.runs:
            run = project.runs[envelope.data.run_id]
            run.reviews.pop(envelope.id, None)
            project.reviews.refuse(envelope.id)
            run.controls.pop(envelope.id, None)
            project.version += 1
            self.version += 1

    def count_dead_letters(self, counts: dict[str, int]) -> None:
        if counts != self.dead_letters:
            self.dead_letters = counts
            self.version += 1
