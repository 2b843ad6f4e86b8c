"""Curate's state from the log, other than the records: specs, requests, versions, turns, withdrawals,
erasures, and trained adapters."""

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
    """All folds over ``TOPICS``. Applying an event twice changes nothing."""

    def __init__(self) -> None:
        self.history = History()
        self.turns = TurnFacts()
        self.withdrawals = Withdrawals()
        self.erasures = Erasures()
        self.specs: dict[str, ProjectSpec] = {}
        """By hash: every spec that the log still holds, including earlier ones."""
        self._decided: dict[str, Envelope[TurnDecided]] = {}
        """By project: the latest decision on the log."""
        self._decided_at: dict[str, Position] = {}
        """By project: the position of the latest decision that was read from the log."""
        self._adapters: dict[str, str] = {}
        """By model id: the dataset version that the adapter was trained on."""

    def apply(self, envelope: Envelope[Any], position: Position) -> None:
        """Apply one event that was read from the log."""
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
        """Apply a request, or the answer to one, whose position on the log is not known."""
        self.history.apply(envelope)
        self.turns.apply(envelope)

    def decided(self, envelope: Envelope[Any]) -> None:
        """Keep a decision that this process just published."""
        self._decided[envelope.project] = envelope

    def _read_decision(self, envelope: Envelope[TurnDecided], position: Position) -> None:
        """Keep a decision from the log if it is the latest. Within a partition the greater offset is later,
        because replicas' clocks differ. Between partitions only the events' times can be compared."""
        project = envelope.project
        known = self._decided_at.get(project, position)
        if known.partition == position.partition:
            holds = known.offset <= position.offset
        else:
            holds = self._decided[project].time <= envelope.time
        if holds:
            self._decided[project], self._decided_at[project] = envelope, position

    def decision(self, project: str) -> TurnDecided | None:
        """Return the latest decision about a project; None: there is none."""
        return self._decided[project].data if project in self._decided else None

    def alarmed(self) -> list[str]:
        """Return the projects that have an open alarm, or whose latest decision names one."""
        told = (name for name, event in self._decided.items() if event.data.alarms)
        return list(dict.fromkeys((*self.turns.alarmed(), *told)))

    def adapters_of(self, dataset_ids: Collection[str]) -> tuple[str, ...]:
        """Return the model ids of the adapters that were trained on any of these versions, sorted."""
        return tuple(sorted(model for model, version in self._adapters.items() if version in dataset_ids))
