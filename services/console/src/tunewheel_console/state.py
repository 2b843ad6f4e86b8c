"""The console's state, folded from events. Pure: ``apply`` changes the state, and pages and the control API
show it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from heapq import nlargest
from typing import Any

from pydantic import BaseModel
from tunewheel_contracts.api.commands import AuditEntry
from tunewheel_contracts.api.projects import ProjectSummary
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import DatasetRejected, DatasetVersioned
from tunewheel_contracts.events.evaluation import ReviewAnswered
from tunewheel_contracts.events.monitoring import WindowJudged
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.events.training import (
    TrainCompleted,
    TrainFailed,
    TrainProgressed,
    TrainStarted,
)
from tunewheel_contracts.events.turns import TurnCompleted, TurnDecided
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.topics import TopicSpec
from tunewheel_runtime.deadletter import Undecoded
from tunewheel_wheel.waits import BAD, waits_of

from tunewheel_console.commands import Commands, Outcome, refusal_in, refused_as
from tunewheel_console.project import TRAFFIC, Project
from tunewheel_console.run import Run

_REPEATED = (
    ProjectDeclared,
    DatasetVersioned,
    DatasetRejected,
    IndexVersioned,
    TrainStarted,
    TrainCompleted,
    TrainFailed,
    TurnCompleted,
    TurnDecided,
)
"""Events that may occur again under the same id: a spec is declared again after another one, the same records
are asked for twice, documents are as they were before, a run is trained again, or a decision is repeated."""


_NAMES: dict[object, set[str]] = {}


MOST_WAITS = 500
"""The most series of ``waits``, of a project and a step each. The longest waits are told, then the latest of
the bad ends: these stay for ever, and would keep out what hangs now."""


class Rest(BaseModel):
    """What lists say of a project at rest, whose events are not in memory as such."""

    summary: ProjectSummary | None = None
    """None: it is not known yet."""
    audit: tuple[AuditEntry, ...] = ()
    is_asked: bool = False
    """Whether people are asked for something: a review or labels."""
    waits: dict[str, datetime] = {}
    """Where it stands still, and since when (``waits_of``)."""
    is_behind: bool = True
    """Whether events came after ``summary``."""


class Projects(dict[str, Project]):
    """The projects in memory, by name. A project at rest is folded when it is asked for by name; iterating
    over the projects folds none."""

    def __init__(self) -> None:
        super().__init__()
        self.resting: dict[str, Rest] = {}
        self.fold: Callable[[str], object] = self.resting.pop
        """Takes a project at rest into memory."""
        self.open: Callable[[str], Awaitable[None]] = _nothing
        """The same, while other tasks have their turns."""
        self.asked: dict[str, float] = {}
        """When each was last asked for, by the process's clock."""

    def __missing__(self, name: str) -> Project:
        if name not in self.resting:
            raise KeyError(name)
        self.fold(name)
        return self[name]

    def get(self, name: str, default: Project | None = None) -> Project | None:  # type: ignore[override]
        if name in self.resting:
            self.fold(name)
        if name in self:
            self.asked[name] = time.monotonic()
        return super().get(name, default)


async def _nothing(_: str) -> None:
    """Nothing is at rest."""


@dataclass
class ConsoleState:
    """The state of all projects."""

    projects: Projects = field(default_factory=Projects)
    refusals: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    """By ``refused_as`` of a command that became a dead letter."""
    figures: dict[str, str] = field(default_factory=dict[str, str])
    """The newest ``window.judged`` of each detector, by ``figure_id``, as JSON, which takes a quarter of the
    memory. They change all the time, and no page of a project's turns shows them."""
    refused: set[str] = field(default_factory=set[str])
    """The ids of reviews and controls that became dead letters."""
    refused_before: frozenset[str] = frozenset()
    """The ids of the dead letters that what is said of projects at rest already counts."""
    waits: dict[tuple[str, str], float] = field(default_factory=dict[tuple[str, str], float])
    """By project and step, for how many seconds the project stood there at the last ``look``. Other threads
    read it for metrics, so it is replaced as a whole."""

    def apply(self, envelope: Envelope[Any]) -> None:
        """Apply one event. The same event a second time changes nothing."""
        if envelope.project in self.projects.resting and isinstance(envelope.data, TRAFFIC):
            return
        project = self.projects.get(envelope.project)
        if project is None:
            project = self.projects[envelope.project] = self.begin(envelope.project)
        self.apply_to(project, envelope)

    def begin(self, name: str) -> Project:
        return Project(name, Commands(self.refusals))

    def apply_to(self, project: Project, envelope: Envelope[Any]) -> bool:
        """Apply one event to its project; return whether it changed anything.

        Ids of topics that carry traffic are not remembered, because no id occurs twice in the part that is
        read.
        """
        project.commands.apply(envelope)
        data = envelope.data
        traffic = isinstance(data, TRAFFIC)
        if not traffic:
            share_field_names(data)
        if not traffic and not isinstance(data, TrainProgressed | ReviewAnswered):
            seen = envelope.id
            if isinstance(data, _REPEATED):
                attempt = data.attempt if isinstance(data, TrainStarted | TrainFailed) else ""
                seen += f" {envelope.time} {envelope.causation_id} {attempt}"
            if seen in project.ids:
                return False
            project.ids.add(seen)
        if envelope.id in self.refused:
            return False
        if not traffic:
            project.apply(envelope)
            project.wheel.apply(envelope)
        project.reviews.apply(envelope)
        project.labels.apply(envelope)
        project.version += not traffic
        return True

    def judge(self, envelope: Envelope[WindowJudged]) -> None:
        self.figures[envelope.data.figure_id] = envelope.data.model_dump_json()

    def detectors_of(self, project: Project) -> list[WindowJudged]:
        """Return the figures of a project's detectors. Those that the spec switches off are ``off``, also
        before the monitor has read the spec."""
        names = [name for name in self.figures if name.partition("/")[0] == project.name]
        found = [WindowJudged.model_validate_json(self.figures[name]) for name in names]
        drift = project.spec.drift if project.spec else None
        return [
            one
            if drift is not None and drift.enabled and drift.asks_for(one.detector, one.family)
            else one.model_copy(update={"state": "off"})
            for one in found
        ]

    def look(self, now: datetime) -> None:
        """Set ``waits``. A project that is not declared any more waits for nothing."""
        found = {name: rest.waits for name, rest in self.projects.resting.items()}
        found |= {
            one.name: waits_of(one.wheel, now) for one in self.projects.values() if one.spec is not None
        }
        seconds = {
            (name, step): (now - since).total_seconds()
            for name, waits in found.items()
            for step, since in waits.items()
            if since <= now
        }
        self.waits = dict(nlargest(MOST_WAITS, seconds.items(), key=lambda one: _urgency(one[0][1], one[1])))

    def forget(self, topic: TopicSpec, project: str) -> None:
        """Apply a tombstone: ``project`` is not declared, or not served, any more."""
        view = self.projects.get(project)
        if view is not None:
            view.forget(topic)

    def refuse(self, envelope: Envelope[Any]) -> None:
        """Undo a review or a command that became a dead letter, because its sender had no right to it. The
        run still waits for a review, or goes on."""
        self.refused.add(envelope.id)
        if (rest := self.projects.resting.get(envelope.project)) is not None:
            rest.is_behind |= envelope.id not in self.refused_before
            return
        project = self.projects.get(envelope.project)
        if project is not None and envelope.data.run_id in project.runs:
            self._undo(project, project.runs[envelope.data.run_id], envelope.id)

    def undo_refused(self, project: Project) -> None:
        """Undo what became a dead letter after it was applied to ``project``, which was not in memory yet."""
        for run in project.runs.values():
            for name in self.refused.intersection((*run.reviews, *run.controls)):
                self._undo(project, run, name)

    def _undo(self, project: Project, run: Run, name: str) -> None:
        run.reviews.pop(name, None)
        project.reviews.refuse(name)
        run.controls.pop(name, None)
        project.version += 1

    def refuse_command(self, letter: Undecoded, command: Envelope[Any]) -> None:
        """Note that a service made a dead letter of ``command``. Letters of other events are ignored."""
        name = refused_as(command)
        if name is None or name in self.refusals:
            return
        self.refusals[name] = refusal_in(letter)
        if (rest := self.projects.resting.get(command.project)) is not None:
            rest.is_behind |= name not in self.refused_before


def _urgency(step: str, seconds: float) -> tuple[bool, float]:
    return (False, -seconds) if step in BAD else (True, seconds)


def share_field_names(model: BaseModel) -> None:
    """Let frozen models in which the same fields are set share the set of their names, and so the models in
    them. Pydantic makes one for each model, and they take almost half the memory of an event."""
    names = model.__pydantic_fields_set__
    key = type(model) if len(names) == len(model.__dict__) else frozenset(names)
    object.__setattr__(model, "__pydantic_fields_set__", _NAMES.setdefault(key, names))
    for value in model.__dict__.values():
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, BaseModel):
                share_field_names(one)
