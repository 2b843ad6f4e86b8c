"""One project, folded from events. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tunewheel_contracts.api.projects import ProjectSummary
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import (
    DatasetRejected,
    DatasetVersioned,
    ErasureCompleted,
    RecordIngested,
)
from tunewheel_contracts.events.evaluation import EvalRequested
from tunewheel_contracts.events.lifecycle import CommandRefused, ModelPinned, ServingDesired, Stage
from tunewheel_contracts.events.monitoring import DriftResolved, WindowJudged
from tunewheel_contracts.events.production import DriftDetected, InferenceCompleted, RolloutJudged
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.events.training import SweepProgressed, SweepRequested, TrainControl
from tunewheel_contracts.events.upstream import FeedbackReceived, ProjectDeclared
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.topics import PROJECT_DECLARED, SERVING_DESIRED, TopicSpec
from tunewheel_wheel.wheel import Wheel

from tunewheel_console.commands import Commands
from tunewheel_console.queues import LabelRequests, Reviews
from tunewheel_console.run import OF_SWEEPS, RUN_EVENTS, Run, Sweep

KEPT = 50
"""How many of the latest drifts and rejections are kept per project."""
TRAFFIC = (RecordIngested, InferenceCompleted, FeedbackReceived, WindowJudged)
"""Events of topics that carry traffic, or figures that change with it."""


@dataclass
class Project:
    """The state of one project. Collections have the newest entry last."""

    name: str
    commands: Commands = field(default_factory=Commands)
    spec: ProjectSpec | None = None
    datasets: dict[str, Envelope[DatasetVersioned]] = field(
        default_factory=dict[str, Envelope[DatasetVersioned]]
    )
    """By id, the event that first told of the version."""
    rejections: deque[DatasetRejected] = field(default_factory=lambda: deque(maxlen=KEPT))
    runs: dict[str, Run] = field(default_factory=dict[str, Run])
    reviews: Reviews = field(init=False)
    """The reviews of answers."""
    labels: LabelRequests = field(default_factory=LabelRequests)
    wheel: Wheel = field(default_factory=Wheel)
    """Open alarms, curate's decision about them, all turns, and the models' stages."""
    pin: tuple[datetime, str, bool] | None = None
    """The last pin or unpin: its time, the model, and whether it is pinned."""
    refusals: deque[CommandRefused] = field(default_factory=lambda: deque(maxlen=KEPT))
    """Commands on models that the registry did not carry out."""
    desired: ServingDesired | None = None
    index: IndexVersioned | None = None
    """The newest version of the index of its documents."""
    drifts: deque[tuple[datetime, DriftDetected]] = field(default_factory=lambda: deque(maxlen=KEPT))
    resolved: dict[str, DriftResolved] = field(default_factory=dict[str, DriftResolved])
    """By alarm."""
    rollouts: dict[str, Envelope[RolloutJudged]] = field(default_factory=dict[str, Envelope[RolloutJudged]])
    """By the id of the event."""
    evaluations_asked: dict[str, Envelope[EvalRequested]] = field(
        default_factory=dict[str, Envelope[EvalRequested]]
    )
    """By the id of the event."""
    sweeps: dict[str, Sweep] = field(default_factory=dict[str, Sweep])
    """Recipes that were tried, by the id of the sweep."""
    erasures: dict[str, ErasureCompleted] = field(default_factory=dict[str, ErasureCompleted])
    """The proofs of erasures, by the id of the event."""
    version: int = 0
    """Grows with every change, but not with traffic, which comes all the time."""
    ids: set[str] = field(default_factory=set[str])
    """The ids of events that were applied and may come again."""
    described: tuple[int, ProjectSummary] | None = None
    """The line in the list of projects, and the ``version`` of which the line tells."""

    def __post_init__(self) -> None:
        self.reviews = Reviews(self.wheel.facts.models)

    @property
    def pinned(self) -> str | None:
        return self.pin[1] if self.pin is not None and self.pin[2] else None

    @property
    def pending_reviews(self) -> list[Run]:
        return [run for run in self.runs.values() if run.awaits_review]

    @property
    def models(self) -> set[str]:
        """All registered models, including bases."""
        return {*self.wheel.facts.models.registrations}

    @property
    def stages(self) -> dict[str, Stage]:
        """The models' stages, the latest moved last."""
        return self.wheel.facts.models.stages

    def forget(self, topic: TopicSpec) -> None:
        """Apply a tombstone: the project is not declared, or not served, any more."""
        if topic is PROJECT_DECLARED:
            self.spec = None
        elif topic is SERVING_DESIRED:
            self.desired = None
        self.version += 1

    def apply(self, envelope: Envelope[Any]) -> None:
        """Apply one event to what the project itself keeps."""
        match envelope.data:
            case ProjectDeclared() as data:
                self.spec = data.spec
            case DatasetVersioned() as data:
                first = self.datasets.get(data.dataset_id, envelope)
                self.datasets[data.dataset_id] = min(first, envelope, key=lambda one: (one.time, one.id))
            case DatasetRejected() as data:
                self.rejections.append(data)
            case SweepRequested() as data:
                self.sweeps.setdefault(data.sweep_id, Sweep()).asked = envelope
            case SweepProgressed() as data:
                self.sweeps.setdefault(data.sweep_id, Sweep()).progress(envelope)
            case TrainControl() as data if data.run_id.startswith(OF_SWEEPS):
                pass  # what became of it is told by the sweep
            case EvalRequested():
                self.evaluations_asked[envelope.id] = envelope
            case ErasureCompleted() as data:
                self.erasures[envelope.id] = data
            case data if isinstance(data, RUN_EVENTS):
                run = self.runs.setdefault(
                    data.run_id, Run(data.run_id, created_at=envelope.time, news_at=envelope.time)
                )
                run.apply(envelope)
            case _:
                self._serve(envelope)

    def _serve(self, envelope: Envelope[Any]) -> None:
        """Apply an event about models that are served, or about their traffic."""
        match envelope.data:
            case ModelPinned() as data:
                pin = (envelope.time, data.model_id, data.pinned)
                self.pin = pin if self.pin is None else max(self.pin, pin)
            case CommandRefused() as data:
                self.refusals.append(data)
            case ServingDesired() as data:
                if self.desired is None or data.generation >= self.desired.generation:
                    self.desired = data
            case IndexVersioned() as data:
                self.index = data
            case DriftDetected() as data:
                # examples of earlier releases hold users' texts, which an erasure would not reach here
                self.drifts.append((envelope.time, data.model_copy(update={"examples": ()})))
            case DriftResolved() as data:
                self.resolved[data.alarm_id] = data
            case RolloutJudged():
                self.rollouts[envelope.id] = envelope
            case _:
                pass
