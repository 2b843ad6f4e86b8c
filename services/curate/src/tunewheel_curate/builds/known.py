"""What curate knows from the log besides the records: what was declared, asked, built and taken back."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tunewheel_contracts.erasures import Erasures
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.monitoring import TurnDecided
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.topics import (
    DOCUMENT_WITHDRAWN,
    ERASURE_REQUESTED,
    PROJECT_DECLARED,
    TRAIN_COMPLETED,
    TURN_DECIDED,
)
from tunewheel_contracts.withdrawals import Withdrawals
from tunewheel_runtime.service import Position

from tunewheel_curate.builds.history import TOPICS as HISTORY_TOPICS
from tunewheel_curate.builds.history import History
from tunewheel_curate.turns.facts import TOPICS as TURN_TOPICS
from tunewheel_curate.turns.facts import TurnFacts

TOPICS = tuple(
    dict.fromkeys(
        (
            PROJECT_DECLARED,
            DOCUMENT_WITHDRAWN,
            ERASURE_REQUESTED,
            TRAIN_COMPLETED,
            TURN_DECIDED,
            *HISTORY_TOPICS,
            *TURN_TOPICS,
        )
    )
)


class Known:
    """The folds, fed together; applying an event twice changes nothing."""

    def __init__(self) -> None:
        self.history = History()
        self.turns = TurnFacts()
        self.withdrawals = Withdrawals()
        self.erasures = Erasures()
        self.specs: dict[str, ProjectSpec] = {}
        """By hash: every spec that the log still holds, the earlier ones too."""
        self._decided: dict[str, Envelope[TurnDecided]] = {}
        """By project: the latest decision on the log."""
        self._decided_at: dict[str, Position] = {}
        """By project: where the log holds it; not yet of one that this process put there."""
        self._adapters: dict[str, str] = {}
        """By model id: the dataset version that an adapter was trained on."""

    def apply(self, envelope: Envelope[Any], position: Position) -> None:
        """Take note of one event on the log."""
        if isinstance(envelope.data, ProjectDeclared):
            self.specs[envelope.data.spec.sha256] = envelope.data.spec
        if isinstance(envelope.data, TrainCompleted):
            self._adapters[envelope.data.adapter.model_id] = envelope.data.dataset_id
        if isinstance(envelope.data, TurnDecided):
            self._read_decision(envelope, position)
        self.requested(envelope)
        self.withdrawals.apply(envelope, position.partition, position.offset)
        self.erasures.apply(envelope)

    def requested(self, envelope: Envelope[Any]) -> None:
        """Take note of a request that is on the log, wherever it lies there, or of what became of one."""
        self.history.apply(envelope)
        self.turns.apply(envelope)

    def decided(self, envelope: Envelope[Any]) -> None:
        """Take note of a decision that was put on the log just now."""
        self._decided[envelope.project] = envelope

    def _read_decision(self, envelope: Envelope[TurnDecided], position: Position) -> None:
        """Take note of a decision where it lies on the log: the last one there holds, whatever the clock of
        who told it said. Two partitions have no order but that of time."""
        project = envelope.project
        known = self._decided_at.get(project, position)
        if known.partition == position.partition:
            holds = known.offset <= position.offset
        else:
            holds = self._decided[project].time <= envelope.time
        if holds:
            self._decided[project], self._decided_at[project] = envelope, position

    def decision(self, project: str) -> TurnDecided | None:
        """Return the latest decision that the log tells of a project."""
        return self._decided[project].data if project in self._decided else None

    def alarmed(self) -> list[str]:
        """Return the projects that have an open alarm, and those whose latest decision knows one."""
        told = (name for name, event in self._decided.items() if event.data.alarms)
        return list(dict.fromkeys((*self.turns.alarmed(), *told)))

    def adapters_of(self, dataset_ids: Collection[str]) -> tuple[str, ...]:
        """Return the adapters that were trained on any of these versions, sorted."""
        return tuple(sorted(model for model, version in self._adapters.items() if version in dataset_ids))
