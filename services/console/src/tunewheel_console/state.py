"""The console's state, folded from events. Pure: ``apply`` changes the state, and the page draws it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import DatasetRejected, DatasetVersioned, RecordIngested
from tunewheel_contracts.events.evaluation import (
    EvalFailed,
    EvalPassed,
    EvalUndecided,
    ReviewAnswered,
    ReviewRequested,
    ReviewSubmitted,
)
from tunewheel_contracts.events.lifecycle import (
    CommandRefused,
    ModelPinned,
    ServingDesired,
    Stage,
)
from tunewheel_contracts.events.monitoring import TurnCompleted, TurnDecided
from tunewheel_contracts.events.production import DriftDetected, InferenceCompleted, RolloutJudged
from tunewheel_contracts.events.training import (
    TrainAction,
    TrainCompleted,
    TrainControl,
    TrainFailed,
    TrainProgressed,
    TrainStarted,
)
from tunewheel_contracts.events.upstream import FeedbackReceived, ProjectDeclared
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.topics import PROJECT_DECLARED, SERVING_DESIRED, TopicSpec
from tunewheel_wheel.facts import order_of_training
from tunewheel_wheel.wheel import Wheel

from tunewheel_console.place import RESTING, Place, Step, place_by_traffic, place_of
from tunewheel_console.queues import LabelRequests, Reviews

KEPT = 50
"""How many of the latest drifts, rollout verdicts and rejections are kept per project."""
LOSS_POINTS = 2_000
"""The most losses that are kept per run."""
T = TypeVar("T", datetime, tuple[datetime, str], tuple[datetime, TrainAction])
Verdict = EvalPassed | EvalFailed | EvalUndecided | ReviewRequested
_REPEATED = (
    DatasetVersioned,
    DatasetRejected,
    TrainStarted,
    TrainCompleted,
    TrainFailed,
    TrainControl,
    TurnCompleted,
    TurnDecided,
)
"""Events that may occur again under the same id: the same records are asked for twice, a run is trained
again, or a decision is repeated."""


@dataclass
class Run:
    """One training run and its progress."""

    run_id: str
    dataset_id: str = ""
    total_steps: int = 0
    step: int = 0
    latest: TrainProgressed | None = None
    """The last reported step."""
    last: Envelope[TrainStarted] | Envelope[TrainFailed] | None = None
    """The last start or failure. A run that failed or was cancelled can be trained again."""
    completed: bool = False
    controls: dict[str, tuple[datetime, TrainAction]] = field(
        default_factory=dict[str, tuple[datetime, TrainAction]]
    )
    """By the command's id, its time and action."""
    losses: dict[int, tuple[int, float]] = field(default_factory=dict[int, tuple[int, float]])
    """The last reported (step, loss) of each stretch of ``stretch`` steps, by the number of the stretch."""
    stretch: int = 1
    verdict: Verdict | None = None
    asked: Envelope[ReviewRequested] | None = None
    """The request for a person's verdict. It becomes the cause of the review, to keep the lineage."""
    reviews: dict[str, ReviewSubmitted] = field(default_factory=dict[str, ReviewSubmitted])
    """By the id of the event."""

    @property
    def awaits_review(self) -> bool:
        """Whether the scorecard waits for a person's verdict. Reviews of answers are in
        ``Project.reviews``."""
        asked = self.verdict
        return isinstance(asked, ReviewRequested) and asked.review_set is None and not self.reviews

    @property
    def ended(self) -> str | None:
        """How it ended; None while it waits or runs, including after a new start."""
        failure = self.last.data if self.last else None
        if self.completed or not isinstance(failure, TrainFailed):
            return "completed" if self.completed else None
        newer = failure.superseded_by
        return f"superseded by {newer}" if newer else f"{failure.field}: {failure.reason}"

    @property
    def paused(self) -> bool:
        """Whether a pause is asked for. The current step is still reported."""
        asked = max(self.controls.values(), default=None)
        return asked is not None and asked[1] is TrainAction.PAUSE

    def add_loss(self, step: int, loss: float) -> None:
        """Keep the loss of ``step``. With more than ``LOSS_POINTS`` losses, every other one is dropped."""
        self.losses[step // self.stretch] = step, loss
        if len(self.losses) > LOSS_POINTS:
            self.stretch *= 2
            self.losses = {at // self.stretch: (at, value) for at, value in sorted(self.losses.values())}

    def curve(self) -> list[list[float]]:
        """Return the pairs (step, loss) in order. A step that was repeated after a resume has its last
        value."""
        return [[step, loss] for step, loss in sorted(self.losses.values())]


@dataclass
class Project:
    """The state of one project. Collections have the newest entry last."""

    name: str
    spec: ProjectSpec | None = None
    traffic_places: dict[Step, Place] = field(default_factory=dict[Step, Place])
    """By step, where the latest record, completion or alarm brings the project while it rests."""
    datasets: dict[str, DatasetVersioned] = field(default_factory=dict[str, DatasetVersioned])
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
    drifts: deque[tuple[datetime, DriftDetected]] = field(default_factory=lambda: deque(maxlen=KEPT))
    rollouts: deque[RolloutJudged] = field(default_factory=lambda: deque(maxlen=KEPT))
    recent: dict[str, int] = field(default_factory=dict[str, int])
    """By event type of topics that carry traffic, how many events were read."""
    thumbs_down: int = 0
    settled: bool = False
    """Whether traffic was seen since the last event of another kind."""
    version: int = 0
    """Grows with every change, except of the traffic counts, which change all the time."""

    def __post_init__(self) -> None:
        self.reviews = Reviews(self.wheel.facts.models)

    @property
    def traffic(self) -> str:
        """The traffic counts as text; empty if there is no traffic."""
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self.recent.items()))
        return f"recent traffic: {counts}; thumbs down {self.thumbs_down}" if counts else ""

    @property
    def pinned(self) -> str | None:
        """The pinned model."""
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

    @property
    def place(self) -> Place | None:
        """Where the project is. Traffic moves it only where no turn goes on."""
        course, place = self.wheel.place, None
        if course is not None:
            run = self.runs.get(course.run_id or "")
            place = place_of(course, paused=run is not None and run.paused)
        elif (declared := self.wheel.facts.declared) is not None:
            place = Place(Step.INGEST, "declared", "waiting", declared.time)
        for step, resting in ((Step.MONITOR, RESTING), (Step.INGEST, (Step.INGEST,))):
            seen = self.traffic_places.get(step)
            if seen is not None and (place is None or (place.step in resting and place.at <= seen.at)):
                return seen
        return place

    def see(self, traffic: Place) -> bool:
        """Keep where traffic brings the project; return whether that may be another place than before. The
        place itself is not computed for every record and completion."""
        before = self.traffic_places.get(traffic.step)
        older = before is not None and traffic.at < before.at
        if not older:
            self.traffic_places[traffic.step] = traffic
        same = older or (before is not None and (before.note, before.tone) == (traffic.note, traffic.tone))
        changed, self.settled = not (same and self.settled), True
        return changed

    def run(self, run_id: str) -> Run:
        return self.runs.setdefault(run_id, Run(run_id))


@dataclass
class ConsoleState:
    """The state of all projects. ``version`` grows with every change, so that a page knows when to draw
    again."""

    projects: dict[str, Project] = field(default_factory=dict[str, Project])
    dead_letters: dict[str, int] = field(default_factory=dict[str, int])
    """The number of dead letters, by original topic."""
    version: int = 0
    _seen: set[str] = field(default_factory=set[str])
    _refused: set[str] = field(default_factory=set[str])

    def apply(self, envelope: Envelope[Any]) -> None:
        """Apply one event. The same event a second time changes nothing.

        Ids of topics that carry traffic are not remembered, because no id occurs twice in the part that is
        read.
        """
        data = envelope.data
        traffic = isinstance(data, RecordIngested | InferenceCompleted | FeedbackReceived)
        if not traffic and not isinstance(data, TrainProgressed | ReviewAnswered):
            again = f" {envelope.time} {envelope.causation_id}" if isinstance(data, _REPEATED) else ""
            again += f" {getattr(data, 'attempt', '')}"
            seen = envelope.id + again
            if seen in self._seen:
                return
            self._seen.add(seen)
        if envelope.id in self._refused:
            return
        project = self.projects.setdefault(envelope.project, Project(envelope.project))
        _fold(project, envelope)
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


def _fold(project: Project, envelope: Envelope[Any]) -> None:
    match envelope.data:
        case ProjectDeclared() as data:
            project.spec = data.spec
        case DatasetVersioned() as data:
            project.datasets[data.dataset_id] = data
        case DatasetRejected() as data:
            project.rejections.append(data)
        case TrainStarted() | TrainProgressed() | TrainCompleted() | TrainFailed() as data:
            _fold_training(project.run(data.run_id), envelope)
        case TrainControl() as data:
            run = project.run(data.run_id)
            run.controls[envelope.id] = _latest(run.controls.get(envelope.id), (envelope.time, data.action))
        case EvalPassed() | EvalFailed() | EvalUndecided() | ReviewRequested() as data:
            _fold_verdict(project.run(data.run_id), data)
            if isinstance(data, ReviewRequested):
                project.run(data.run_id).asked = envelope
        case ReviewSubmitted() as data:
            project.run(data.run_id).reviews[envelope.id] = data
        case ModelPinned() as data:
            pin = (envelope.time, data.model_id, data.pinned)
            project.pin = pin if project.pin is None else max(project.pin, pin)
        case CommandRefused() as data:
            project.refusals.append(data)
        case ServingDesired() as data:
            if project.desired is None or data.generation >= project.desired.generation:
                project.desired = data
        case DriftDetected() as data:
            # examples of earlier releases hold users' texts, which an erasure would not reach here
            project.drifts.append((envelope.time, data.model_copy(update={"examples": ()})))
        case RolloutJudged() as data:
            project.rollouts.append(data)
        case RecordIngested() | InferenceCompleted() | FeedbackReceived() as data:
            project.recent[data.type] = project.recent.get(data.type, 0) + 1
            project.thumbs_down += isinstance(data, FeedbackReceived) and data.rating == "down"
        case _:
            pass


def _fold_training(run: Run, event: Envelope[Any]) -> None:
    """Apply one event of a run. Its types have topics of their own, so their order is anybody's."""
    match event.data:
        case TrainStarted() | TrainFailed() as data:
            run.dataset_id, run.last = data.dataset_id, max(run.last or event, event, key=order_of_training)
            run.total_steps = data.total_steps if isinstance(data, TrainStarted) else run.total_steps
        case TrainProgressed() as data:
            run.step, run.total_steps = max(run.step, data.step), data.total_steps
            run.latest = data
            run.add_loss(data.step, data.loss)
        case TrainCompleted() as data:
            run.dataset_id, run.completed = data.dataset_id, True
        case _:
            pass


def _latest(before: T | None, new: T) -> T:
    return new if before is None else max(before, new)


def _fold_verdict(run: Run, data: Verdict) -> None:
    """Keep a final verdict. An open one never replaces it, in whatever order they are read."""
    run.dataset_id = data.dataset_id
    if run.verdict is None or isinstance(run.verdict, ReviewRequested | EvalUndecided):
        run.verdict = data
