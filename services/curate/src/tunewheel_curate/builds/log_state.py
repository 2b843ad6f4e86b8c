"""Curate's state from the log, other than the records: specs, requests, versions, turns, withdrawals,
judgements, erasures, and trained adapters. A restart forgets nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tunewheel_contracts.erasures import Erasures
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import DatasetRejected, DatasetRequested, DatasetVersioned
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.events.turns import TurnDecided
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.judgements import Judgements
from tunewheel_contracts.topics import (
    DOCUMENT_WITHDRAWN,
    ERASURE_REQUESTED,
    PROJECT_DECLARED,
    RECORD_JUDGED,
    TURN_DECIDED,
)
from tunewheel_contracts.withdrawals import Withdrawals
from tunewheel_runtime.service import Position
from tunewheel_turns.facts import TOPICS as TURN_TOPICS
from tunewheel_turns.facts import TurnFacts

TOPICS = (
    PROJECT_DECLARED, DOCUMENT_WITHDRAWN, RECORD_JUDGED, ERASURE_REQUESTED, TURN_DECIDED, *TURN_TOPICS
)  # fmt: skip


class History:
    """Which builds were requested and how they were answered. The topics of builds keep a project's events in
    one partition. Applying an event twice changes nothing."""

    def __init__(self) -> None:
        self._built_upto: dict[str, dict[str, int]] = {}
        self._judged_upto: dict[str, dict[str, int]] = {}
        self._answered: set[str] = set()
        self._requested: dict[str, dict[str, None]] = {}
        """By project, in the log's order: the requests that name their records or wait for an index."""
        self._waiting: dict[str, dict[str, Envelope[DatasetRequested]]] = {}
        """By project: the requests that wait for an index."""
        self._versions: dict[str, Envelope[DatasetVersioned]] = {}
        self._held: dict[str, dict[str, dict[str, int]]] = {}
        """By project and version that waits for a person: the records that it was made of."""

    def apply(self, envelope: Envelope[Any]) -> None:
        """Apply one event; other topics are ignored."""
        data = envelope.data
        if not isinstance(data, DatasetRequested | DatasetVersioned | DatasetRejected):
            return
        if self.has_requested(data.project, envelope.id):
            return  # the first request of this id is built; a repeated one may name later records
        _raise(self._built_upto.setdefault(data.project, {}), data.records_upto or {})
        if not isinstance(data, DatasetRequested):
            _raise(self._judged_upto.setdefault(data.project, {}), data.judged_upto or {})
        if isinstance(data, DatasetVersioned) and data.dataset_id not in self._versions:
            self._versions[data.dataset_id] = envelope
            # A version held earlier lacks the new version's holdout, and was compared with an older version.
            self._held.pop(data.project, None)
        if isinstance(data, DatasetRejected) and data.held is not None:
            self._held.setdefault(data.project, {})[data.held] = dict(data.records_upto or {})
        is_request = isinstance(data, DatasetRequested)
        if is_request and data.records_upto is None and not data.awaits_index:
            return  # a command: curate answers it with a request that names records
        if is_request:
            self._requested.setdefault(data.project, {})[envelope.id] = None
        if is_request and data.awaits_index:
            self._waiting.setdefault(data.project, {})[envelope.id] = envelope
        if envelope.causation_id:
            self._answered.add(envelope.causation_id)
            self._waiting.get(data.project, {}).pop(envelope.causation_id, None)

    def built_upto(self, project: str) -> dict[str, int]:
        """Return, by partition, the offset up to which records were built or are being built."""
        return dict(self._built_upto.get(project, {}))

    def judged_upto(self, project: str) -> dict[str, int]:
        """Return, by partition, the offset up to which decisions about records in quarantine are in a
        build."""
        return dict(self._judged_upto.get(project, {}))

    def has_requested(self, project: str, request_id: str) -> bool:
        """Return whether the log has this request, and it names its records or waits for an index."""
        return request_id in self._requested.get(project, {})

    def waiting(self, project: str) -> list[Envelope[DatasetRequested]]:
        """Return the requests that wait for the project's first index."""
        return list(self._waiting.get(project, {}).values())

    def projects_waiting(self) -> list[str]:
        """Return the projects with requests that wait for an index."""
        return [project for project, waiting in self._waiting.items() if waiting]

    def held(self, project: str) -> dict[str, dict[str, int]]:
        """Return the versions that wait for a person, and by partition the records of each."""
        return dict(self._held.get(project, {}))

    def has_answered(self, request_id: str) -> bool:
        """Return whether the log holds the answer to a ``dataset.requested``."""
        return request_id in self._answered

    def versions(self, project: str) -> list[DatasetVersioned]:
        """Return the versions of ``project``, the oldest first."""
        return [envelope.data for envelope in self._versions.values() if envelope.project == project]

    def before(self, version: DatasetVersioned) -> list[DatasetVersioned]:
        """Return the versions of a project before ``version``, the oldest first."""
        versions = self.versions(version.project)
        return versions[: [one.dataset_id for one in versions].index(version.dataset_id)]

    def latest(self, project: str) -> DatasetVersioned | None:
        """Return the newest version of ``project``."""
        versions = self.versions(project)
        return versions[-1] if versions else None

    def is_building(self, project: str) -> bool:
        """Return whether the project's newest request is still unanswered.

        Requests of a project are answered in order, so earlier ones need no check. An earlier request without
        an answer became a dead letter.
        """
        newest = next(reversed(self._requested.get(project, {})), None)
        return newest is not None and newest not in self._answered


def _raise(ends: dict[str, int], upto: Mapping[str, int]) -> None:
    """Raise the offsets ``ends``, by partition, to ``upto``."""
    for partition, end in upto.items():
        ends[partition] = max(end, ends.get(partition, 0))


class LogState:
    """All folds over ``TOPICS``. Applying an event twice changes nothing."""

    def __init__(self) -> None:
        self.history = History()
        self.turns = TurnFacts()
        self.withdrawals = Withdrawals()
        self.judgements = Judgements()
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
        self.judgements.apply(envelope, position.partition, position.offset)
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
        decided_at = self._decided_at.get(project, position)
        if decided_at.partition == position.partition:
            holds = decided_at.offset <= position.offset
        else:
            holds = self._decided[project].time <= envelope.time
        if holds:
            self._decided[project], self._decided_at[project] = envelope, position

    def decision(self, project: str) -> TurnDecided | None:
        """Return the latest decision about a project; None: there is none."""
        return self._decided[project].data if project in self._decided else None

    def alarmed(self) -> list[str]:
        """Return the projects that have an open alarm, or whose latest decision names one."""
        acted = (name for name, event in self._decided.items() if event.data.alarms)
        return list(dict.fromkeys((*self.turns.alarmed(), *acted)))

    def adapters_of(self, dataset_ids: Collection[str]) -> tuple[str, ...]:
        """Return the model ids of the adapters that were trained on any of these versions, sorted."""
        return tuple(sorted(model for model, version in self._adapters.items() if version in dataset_ids))
