"""One training run, or a sweep of several recipes, folded from its events. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.evaluation import (
    EvalFailed,
    EvalPassed,
    EvalUndecided,
    ReviewRequested,
    ReviewSubmitted,
)
from tunewheel_contracts.events.training import (
    SweepProgressed,
    SweepRequested,
    TrainAction,
    TrainCompleted,
    TrainControl,
    TrainFailed,
    TrainPlanned,
    TrainProgressed,
    TrainStarted,
)
from tunewheel_contracts.formats.sweep import SweepState
from tunewheel_wheel.facts import order_of_training

LOSS_POINTS = 1_000
"""The most points of a curve that are kept per run."""
Point = tuple[int, float, float, float, int | None]
"""Of one step: its number, loss, learning rate, tokens per second, and bytes of memory: the GPU's if there is
one."""
Verdict = EvalPassed | EvalFailed | EvalUndecided | ReviewRequested
OPEN = (ReviewRequested, EvalUndecided)
"""Verdicts that a final one replaces."""
RUN_EVENTS = (
    TrainPlanned,
    TrainStarted,
    TrainProgressed,
    TrainCompleted,
    TrainFailed,
    TrainControl,
    EvalPassed,
    EvalFailed,
    EvalUndecided,
    ReviewRequested,
    ReviewSubmitted,
)
"""The events that ``Run`` folds."""
E = TypeVar("E", bound=Envelope[Any])


@dataclass
class Run:
    """One training run and its progress."""

    run_id: str
    created_at: datetime
    """The time of the first event about the run."""
    news_at: datetime
    """The time of the last event about the run."""
    dataset_id: str = ""
    total_steps: int = 0
    step: int = 0
    planned: Envelope[TrainPlanned] | None = None
    latest: TrainProgressed | None = None
    """The last reported step."""
    started: Envelope[TrainStarted] | None = None
    """The latest start."""
    failed: Envelope[TrainFailed] | None = None
    """The latest failure. A run that failed or was cancelled can be trained again."""
    completed: Envelope[TrainCompleted] | None = None
    controls: dict[str, Envelope[TrainControl]] = field(default_factory=dict[str, Envelope[TrainControl]])
    """By the command's id."""
    points: dict[int, Point] = field(default_factory=dict[int, Point])
    """The last reported step of each stretch of ``stretch`` steps, by the number of the stretch."""
    validation: dict[int, float] = field(default_factory=dict[int, float])
    """The validation losses, by step."""
    stretch: int = 1
    verdict: Verdict | None = None
    asked: Envelope[ReviewRequested] | None = None
    """The request for a person's verdict. It becomes the cause of the review, to keep the lineage."""
    evaluations: dict[str, Envelope[Any]] = field(default_factory=dict[str, Envelope[Any]])
    """The verdict of each evaluation, by its id; by the run's id for those of earlier releases."""
    reviews: dict[str, ReviewSubmitted] = field(default_factory=dict[str, ReviewSubmitted])
    """By the id of the event."""

    def apply(self, event: Envelope[Any]) -> None:
        """Apply one event of ``RUN_EVENTS``. Each type has a topic of its own, so their order is anybody's.
        The same event a second time changes nothing."""
        self.created_at, self.news_at = min(self.created_at, event.time), max(self.news_at, event.time)
        self.dataset_id = getattr(event.data, "dataset_id", "") or self.dataset_id
        match event.data:
            case TrainPlanned():
                self.planned = event
            case TrainStarted() as data:
                self.started = max(self.started or event, event, key=order_of_training)
                self.total_steps = data.total_steps
            case TrainFailed():
                self.failed = max(self.failed or event, event, key=order_of_training)
            case TrainProgressed() as data:
                self._progress(data)
            case TrainCompleted():
                self.completed = _earliest(self.completed, event)
            case TrainControl():
                self.controls.setdefault(event.id, event)
            case ReviewSubmitted() as data:
                self.reviews[event.id] = data
            case _:
                self._judge(event)

    def _progress(self, data: TrainProgressed) -> None:
        self.step, self.total_steps, self.latest = max(self.step, data.step), data.total_steps, data
        memory = data.memory_bytes if data.gpu_memory_bytes is None else data.gpu_memory_bytes
        self.add_point((data.step, data.loss, data.learning_rate, data.tokens_per_second, memory))
        if data.validation_loss is not None:
            self.validation[data.step] = data.validation_loss

    def _judge(self, event: Envelope[Any]) -> None:
        """Keep a final verdict. An open one never replaces it, in whatever order they are read."""
        if self.verdict is None or isinstance(self.verdict, OPEN):
            self.verdict = event.data
        if isinstance(event.data, ReviewRequested):
            self.asked = event
        name = event.data.evaluation_id or self.run_id
        before = self.evaluations.get(name)
        if before is None or isinstance(before.data, OPEN):
            self.evaluations[name] = event

    @property
    def awaits_review(self) -> bool:
        """Whether the scorecard waits for a person's verdict. Reviews of answers are in
        ``Project.reviews``."""
        asked = self.verdict
        return isinstance(asked, ReviewRequested) and asked.review_set is None and not self.reviews

    @property
    def failure(self) -> Envelope[TrainFailed] | None:
        """The failure that ended the run; None: it waits, runs or is completed, also after a new start."""
        if self.completed is not None or self.failed is None:
            return None
        again = self.started is not None and order_of_training(self.started) > order_of_training(self.failed)
        return None if again else self.failed

    @property
    def ended(self) -> str | None:
        """How it ended; None while it waits or runs."""
        if self.completed is not None:
            return "completed"
        if self.failure is None:
            return None
        data = self.failure.data
        newer = data.superseded_by
        return f"superseded by {newer}" if newer else f"{data.field}: {data.reason}"

    @property
    def control(self) -> TrainAction | None:
        asked = max(self.controls.values(), key=lambda one: (one.time, one.data.action), default=None)
        return asked.data.action if asked is not None else None

    @property
    def paused(self) -> bool:
        """Whether a pause is asked for. The current step is still reported."""
        return self.control is TrainAction.PAUSE

    @property
    def state(self) -> str:
        """``waiting``, ``training``, ``paused``, ``completed``, ``failed``, ``cancelled`` or
        ``superseded``."""
        if self.completed is not None:
            return "completed"
        if self.failure is not None:
            if self.failure.data.superseded_by:
                return "superseded"
            return "cancelled" if self.control is TrainAction.CANCEL else "failed"
        if self.paused:
            return "paused"
        return "training" if self.started is not None or self.latest is not None else "waiting"

    def add_point(self, point: Point) -> None:
        """Keep the figures of a step. With more than ``LOSS_POINTS`` steps, every other one is dropped."""
        self.points[point[0] // self.stretch] = point
        if len(self.points) > LOSS_POINTS:
            self.stretch *= 2
            self.points = {one[0] // self.stretch: one for one in self.curve()}

    def curve(self) -> list[Point]:
        """Return the points in order. A step that was repeated after a resume has its last figures."""
        return sorted(self.points.values())


def verdict_of(verdict: Verdict) -> str:
    """Return a verdict's outcome: ``passed``, ``failed``, ``undecided`` or ``review``."""
    return verdict.type.removeprefix("eval.").removesuffix(".requested")


def _earliest(before: E | None, event: E) -> E:
    return event if before is None else min(before, event, key=lambda one: (one.time, one.id))


OF_SWEEPS = "sweep-"
"""Ids of sweeps begin with it, and those of runs do not."""


@dataclass
class Sweep:
    """What was asked for, and how far it is. One of both is known at least."""

    asked: Envelope[SweepRequested] | None = None
    latest: Envelope[SweepProgressed] | None = None

    @property
    def ended(self) -> str | None:
        """How it ended; None: it waits or is trained."""
        over = self.latest is not None and self.latest.data.state is not SweepState.TRAINING
        return self.latest.data.state.value if self.latest and over else None

    def progress(self, event: Envelope[SweepProgressed]) -> None:
        if self.latest is None or event.data.lateness > self.latest.data.lateness:
            self.latest = event
