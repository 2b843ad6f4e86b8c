"""The state of the alarms and turns of one project, folded from its events.

A reader passes in the events of ``TOPICS``, which have no order between topics. ``turn_report.py`` puts the
state into words.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import DatasetRejected, DatasetRequested, DatasetVersioned
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed, EvalUndecided, ReviewRequested
from tunewheel_contracts.events.lifecycle import ModelPromoted, ModelRolledback, Stage
from tunewheel_contracts.events.monitoring import DriftResolved, TurnCompleted, TurnDecided
from tunewheel_contracts.events.production import AlarmOpened, DriftDetected
from tunewheel_contracts.events.training import TrainCompleted, TrainFailed, TrainProgressed, TrainStarted
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.rollout_spec import RolloutSpec
from tunewheel_contracts.identity import turn_id_of

TOPICS = (
    topics.PROJECT_DECLARED,
    topics.DRIFT_DETECTED,
    topics.ALARM_OPENED,
    topics.DRIFT_RESOLVED,
    topics.TURN_DECIDED,
    topics.DATASET_REQUESTED,
    topics.DATASET_VERSIONED,
    topics.DATASET_REJECTED,
    topics.TRAIN_STARTED,
    topics.TRAIN_PROGRESSED,
    topics.TRAIN_COMPLETED,
    topics.TRAIN_FAILED,
    topics.EVAL_PASSED,
    topics.EVAL_FAILED,
    topics.EVAL_UNDECIDED,
    topics.REVIEW_REQUESTED,
    topics.MODEL_PROMOTED,
    topics.MODEL_ROLLEDBACK,
    topics.TURN_COMPLETED,
)
STALE = timedelta(days=7)
"""A turn without any event for this long no longer counts as in flight: the service that should continue it
is gone, or a person does not answer. A turn whose model is on trial has more time; see ``stale_after``."""
OVER = ""
"""The stage of a version whose turn is over."""
PASSED = "passed its evaluation and waits for its rollout"
MOVES = {
    Stage.EVALUATED: PASSED,
    Stage.SHADOW: "in shadow",
    Stage.CANARY: "in canary",
    Stage.PRODUCTION: "in production, its effect is being measured",
    Stage.RETIRED: OVER,
    Stage.REJECTED: OVER,
}


def stale_after(rollout: RolloutSpec) -> timedelta:
    """Return how long a turn may be without an event: a trial may have none until its deadline, and one more
    day is added for its verdict."""
    stages = (stage for stage in (rollout.shadow, rollout.canary) if stage.enabled)
    longest = max((stage.deadline_seconds for stage in stages), default=0)
    return max(STALE, timedelta(seconds=longest) + timedelta(days=1))


@dataclass(frozen=True, slots=True)
class TurnInFlight:
    """A turn in flight: the stage of its version, and since when."""

    turn_id: str
    reason: str
    """The reason of the request: drift, new records (``count``, ``quiet``) or a command."""
    alarm_ids: tuple[str, ...]
    dataset_id: str | None
    began_at: datetime
    stage: str
    since: datetime
    news_at: datetime
    """Time of the turn's latest event."""


class TurnStatus:
    """The state of one project. Applying an event twice, or in another order, changes nothing."""

    def __init__(self) -> None:
        self.decision: Envelope[TurnDecided] | None = None
        """The latest decision of curate about the open alarms."""
        self._declared: tuple[datetime, timedelta] | None = None
        """For the latest spec: its time, and how long its turns may be without an event."""
        self._alarms: dict[str, Envelope[DriftDetected | AlarmOpened]] = {}
        """By ``alarm_id``; for alarms of earlier releases, which have none, by event id. ``alarm.opened``
        stays on the log when ``drift.detected``, which says more, is gone."""
        self._resolved: set[str] = set()
        self._requests: dict[str, Envelope[DatasetRequested]] = {}
        """The requests that name their records, by event id. Each of them began a turn."""
        self._answers: dict[str, Envelope[DatasetVersioned] | Envelope[DatasetRejected]] = {}
        """The result of each request, by the request's event id."""
        self._stages: dict[str, tuple[datetime, str]] = {}
        """By dataset version: its stage by training and evaluation, and since when."""
        self._moves: dict[str, tuple[int, datetime, str]] = {}
        """By model: the generation of the registry's latest step, its time, and the stage. The clocks of two
        registries differ, so generations come first."""
        self._models: dict[str, set[str]] = {}
        """By dataset version: the models that were trained on it."""
        self._runs: dict[str, str] = {}
        """By dataset version: the run that trains on it."""
        self._progress: dict[str, Envelope[TrainProgressed]] = {}
        """By run: the latest step."""
        self._completed: dict[str, TurnCompleted] = {}

    def apply(self, envelope: Envelope[Any]) -> None:
        """Add one event. Events of other topics are ignored."""
        at, data = envelope.time, envelope.data
        match data:
            case ProjectDeclared():
                self._declared = max((at, stale_after(data.spec.rollout)), self._declared or (at, STALE))
            case DriftDetected():
                # Users' texts are dropped: they are not needed here, and an erasure would not remove them.
                bare = replace(envelope, data=data.model_copy(update={"examples": ()}))
                name = data.alarm_id or envelope.id
                if name not in self._alarms or isinstance(self._alarms[name].data, AlarmOpened):
                    self._alarms[name] = bare
            case AlarmOpened():
                self._alarms.setdefault(data.alarm_id, envelope)
            case DriftResolved():
                self._resolved.add(data.alarm_id)
            case TurnDecided() if self.decision is None or self.decision.time <= at:
                self.decision = envelope
            case DatasetRequested() if data.records_upto is not None:
                self._requests.setdefault(envelope.id, envelope)
            case DatasetVersioned() | DatasetRejected():
                self._answers.setdefault(envelope.causation_id or envelope.id, envelope)
            case TrainProgressed():
                known = self._progress.get(data.run_id)
                if known is None or (known.data.step, known.time) <= (data.step, at):
                    self._progress[data.run_id] = envelope
            case ModelRolledback():
                self._move(data.model_id, (data.generation or 0, at, OVER))
            case ModelPromoted() if data.to_stage in MOVES:
                undecided = data.to_stage is Stage.EVALUATED and data.held_up
                stage = OVER if undecided else MOVES[data.to_stage]
                self._move(data.model_id, (data.generation or 0, at, stage))
            case TurnCompleted():
                self._completed.setdefault(data.turn_id, data)
            case _:
                self._follow(envelope)

    @property
    def open_alarms(self) -> dict[str, Envelope[DriftDetected | AlarmOpened]]:
        """Return the alarms that are not resolved, by id, oldest first. An alarm of an earlier release, which
        has no id, is never resolved; it counts as over once a version is requested."""
        asked = max((request.time for request in self._requests.values()), default=None)
        left = {
            name: alarm
            for name, alarm in self._alarms.items()
            if name not in self._resolved and (alarm.data.alarm_id or asked is None or asked < alarm.time)
        }
        return dict(sorted(left.items(), key=lambda one: (one[1].time, one[0])))

    def in_flight(self, now: datetime) -> list[TurnInFlight]:
        """Return the turns in flight, oldest first, without those that had no event for too long.

        Requests of a project are answered in order. So if a later request has a result, an earlier one
        without a result became a dead letter.
        """
        stale = self._declared[1] if self._declared else STALE
        requests = sorted(self._requests.values(), key=lambda one: (one.time, one.id))
        answered = [number for number, one in enumerate(requests) if one.id in self._answers]
        left = requests[max(answered, default=0) :]
        waiting = [one for one in requests if one.id in self._answers or one in left]
        turns = (self._turn(one) for one in waiting if turn_id_of(one.id) not in self._completed)
        return [turn for turn in turns if turn.stage != OVER and now - turn.news_at < stale]

    @property
    def last(self) -> TurnCompleted | None:
        """Return the turn that ended last."""
        ended = self._completed.values()
        return max(ended, key=lambda turn: (turn.ended_at, turn.turn_id), default=None)

    def _follow(self, envelope: Envelope[Any]) -> None:
        """Note the progress of a version in training and evaluation."""
        data, at = envelope.data, envelope.time
        match data:
            case TrainStarted():
                self._runs[data.dataset_id] = data.run_id
                stage = "in training"
            case TrainCompleted():
                stage = "in evaluation"
            case EvalPassed():
                stage = PASSED
            case ReviewRequested():
                stage = "waits for people to review it"
            case TrainFailed() | EvalFailed() | EvalUndecided():
                stage = OVER
            case _:
                return
        if isinstance(data, TrainCompleted | EvalPassed | EvalFailed | EvalUndecided | ReviewRequested):
            self._models.setdefault(data.dataset_id, set()).add(data.adapter.model_id)
        said = (at, stage)
        self._stages[data.dataset_id] = max(said, self._stages.get(data.dataset_id, said))

    def _move(self, model_id: str, step: tuple[int, datetime, str]) -> None:
        self._moves[model_id] = max(step, self._moves.get(model_id, step))

    def _turn(self, request: Envelope[DatasetRequested]) -> TurnInFlight:
        answer = self._answers.get(request.id)
        dataset_id = answer.data.dataset_id if answer and isinstance(answer.data, DatasetVersioned) else None
        if answer is None:
            since, stage = request.time, "its dataset version is being built"
        elif dataset_id is None:
            since, stage = answer.time, OVER
        else:
            # A model that passed may be evaluated again. Only the registry's steps change its stage then.
            moves = [self._moves[model] for model in self._models.get(dataset_id, ()) if model in self._moves]
            judged = self._stages.get(dataset_id, (answer.time, "waits for training"))
            since, stage = max(moves)[1:] if moves else judged
        news_at = since
        progress = self._progress.get(self._runs.get(dataset_id or "", ""))
        if stage == "in training" and progress is not None:
            news_at, told = max(since, progress.time), progress.data
            stage += f", step {told.step} of {told.total_steps}, {told.eta_seconds:.0f} s left"
        return TurnInFlight(
            turn_id=turn_id_of(request.id),
            reason=request.data.reason.value,
            alarm_ids=request.data.alarm_ids,
            dataset_id=dataset_id,
            began_at=request.time,
            stage=stage,
            since=since,
            news_at=news_at,
        )
