"""Follows how far each version came: training, evaluation, rollout, and where it ended."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed, EvalUndecided
from tunewheel_contracts.events.lifecycle import ModelPromoted, ModelRolledback, Stage
from tunewheel_contracts.events.monitoring import TurnCompleted
from tunewheel_contracts.events.training import TrainCompleted, TrainFailed, TrainStarted

from tunewheel_curate.turns.state import GOOD, UNSERVED, UNTRAINED

UNDECIDED = "was undecided in its evaluation"
BAD = frozenset(
    {
        UNTRAINED,
        "failed its evaluation",
        UNDECIDED,
        "was rejected",
        "was rolled back",
        UNSERVED,
        "did not help",
    }
)
"""Outcomes after which a command may try the same data again."""
STAGES = {
    Stage.EVALUATED: "",
    Stage.SHADOW: "",
    Stage.CANARY: "",
    Stage.PRODUCTION: GOOD,
    Stage.REJECTED: "was rejected",
    Stage.RETIRED: UNSERVED,
}


class Ending(NamedTuple):
    """One event that ended a turn. With an empty ``outcome``: an event that cancels an earlier end."""

    at: datetime
    event_id: str
    outcome: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Fate:
    """How far a version has come. ``ended_at`` is the time of its turn's first end, ``outcome`` the latest
    outcome."""

    begun: bool = False
    news_at: datetime | None = None
    ended_at: datetime | None = None
    completed_at: datetime | None = None
    outcome: str = ""
    why: str = ""


class Fates:
    """A fold over one project's events. Their order does not matter."""

    def __init__(self) -> None:
        self._begun: set[str] = set()
        self._superseded: dict[str, str] = {}
        self._models: defaultdict[str, set[str]] = defaultdict(set)
        self._news: dict[str, datetime] = {}
        self._training: defaultdict[str, set[Ending]] = defaultdict(set)
        self._verdicts: defaultdict[str, set[Ending]] = defaultdict(set)
        self._completed: defaultdict[str, set[Ending]] = defaultdict(set)
        """By ``dataset_id``, like the fields above; the fields below are by model id."""
        self._stages: defaultdict[str, set[tuple[int, Ending]]] = defaultdict(set)
        """Sorted by the registry's generation, because the clocks of two registries differ."""
        self._moved: dict[str, datetime] = {}

    def apply(self, envelope: Envelope[Any]) -> None:
        """Apply one event; events that do not concern a version's fate are ignored."""
        data = envelope.data
        match data:
            case TrainStarted():
                self._begun.add(data.dataset_id)
            case TrainCompleted():
                self._begun.add(data.dataset_id)
                self._models[data.dataset_id].add(data.adapter.model_id)
                self._training[data.dataset_id].add(_ending(envelope, ""))
            case TrainFailed(superseded_by=str(newer)):
                self._superseded[data.dataset_id] = newer
            case TrainFailed():
                self._training[data.dataset_id].add(_ending(envelope, UNTRAINED, data.reason))
            case EvalPassed():
                self._judged(envelope, "")
            case EvalFailed():
                self._judged(envelope, "failed its evaluation", data.reasons[0])
            case EvalUndecided():
                self._judged(envelope, UNDECIDED, data.reasons[0])
            case ModelPromoted(to_stage=Stage.EVALUATED, held_up=True):
                self._move(envelope, UNDECIDED, data.reason)
            case ModelPromoted():
                self._move(envelope, STAGES.get(data.to_stage), data.reason)
            case ModelRolledback():
                self._move(envelope, "was rolled back", data.reason)
            case TurnCompleted(dataset_id=str(dataset_id)):
                outcome = "did not help" if data.outcome == "did not help" else ""
                self._completed[dataset_id].add(_ending(envelope, outcome, data.next_step))
            case _:
                return
        if (version := getattr(data, "dataset_id", None)) is not None:
            self._news[version] = max(envelope.time, self._news.get(version, envelope.time))

    def of(self, dataset_id: str) -> Fate:
        """Return how far a version has come. If a newer version superseded it before its training, the fate
        of the newer version counts."""
        passed = {dataset_id}
        while not self._training[dataset_id] and (newer := self._superseded.get(dataset_id)):
            if newer in passed:
                break
            passed.add(newer)
            dataset_id = newer
        models = self._models[dataset_id]
        steps = sorted(step for model in models for step in self._stages[model])
        stages = [ending for _, ending in steps]
        ends = self._ends(dataset_id, stages)
        news = [self._news.get(dataset_id), *(self._moved.get(model) for model in models)]
        told = [at for at in news if at is not None]
        completed = sorted(self._completed[dataset_id])
        latest = next((one for one in reversed(completed) if one.outcome), ends[-1] if ends else None)
        # The registry may take up a model again that the monitor called undecided: its champion came back.
        is_tried = bool(stages) and not stages[-1].outcome
        ended = [] if is_tried else [one.at for one in (*ends, *completed)]
        return Fate(
            begun=dataset_id in self._begun,
            news_at=max(told, default=None),
            ended_at=min(ended, default=None),
            completed_at=completed[0].at if completed else None,
            outcome=latest.outcome if latest else "",
            why=latest.why if latest else "",
        )

    def _ends(self, dataset_id: str, stages: list[Ending]) -> list[Ending]:
        """Return the events that ended the turn, latest last. A model's stage outweighs its verdict, and a
        verdict outweighs the training."""
        served = any(one.outcome == GOOD for one in stages)
        if stages:
            first = 1 + max((at for at, one in enumerate(stages) if not one.outcome), default=-1)
            return [one for one in stages[first:] if not (served and one.outcome == STAGES[Stage.RETIRED])]
        for words in (self._verdicts[dataset_id], self._training[dataset_id]):
            if words:
                latest = max(words)
                return [latest] if latest.outcome else []
        return []

    def _judged(self, envelope: Envelope[Any], outcome: str, why: str = "") -> None:
        data = envelope.data
        self._models[data.dataset_id].add(data.adapter.model_id)
        self._verdicts[data.dataset_id].add(_ending(envelope, outcome, why))

    def _move(self, envelope: Envelope[Any], outcome: str | None, why: str) -> None:
        model = envelope.data.model_id
        self._moved[model] = max(envelope.time, self._moved.get(model, envelope.time))
        if outcome is not None:
            self._stages[model].add((envelope.data.generation or 0, _ending(envelope, outcome, why)))


def _ending(envelope: Envelope[Any], outcome: str, why: str = "") -> Ending:
    return Ending(envelope.time, envelope.id, outcome, why)
