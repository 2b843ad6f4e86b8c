"""What was requested, built and answered so far: folded from the log, so that a restart forgets nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import DatasetRejected, DatasetRequested, DatasetVersioned
from tunewheel_contracts.topics import DATASET_REJECTED, DATASET_REQUESTED, DATASET_VERSIONED

TOPICS = (DATASET_REQUESTED, DATASET_VERSIONED, DATASET_REJECTED)


class History:
    """A fold over ``TOPICS``, which keep a project's events in one partition; applying an event twice changes
    nothing."""

    def __init__(self) -> None:
        self._built_upto: dict[str, dict[str, int]] = {}
        self._answered: set[str] = set()
        self._requested: dict[str, dict[str, None]] = {}
        """By project: the requests that name their records, or wait to, in their order."""
        self._waiting: dict[str, dict[str, Envelope[DatasetRequested]]] = {}
        """By project: those that wait."""
        self._versions: dict[str, Envelope[DatasetVersioned]] = {}

    def apply(self, envelope: Envelope[Any]) -> None:
        """Take note of one event."""
        data = envelope.data
        if not isinstance(data, DatasetRequested | DatasetVersioned | DatasetRejected):
            return
        if self.has_requested(data.project, envelope.id):
            return  # the first one is built, whatever records another of the same name would add
        self.cover(data.project, data.records_upto or {})
        if isinstance(data, DatasetVersioned):
            self._versions.setdefault(data.dataset_id, envelope)
        is_request = isinstance(data, DatasetRequested)
        if is_request and data.records_upto is None and not data.awaits_index:
            return  # a command, which is answered by a request
        if is_request:
            self._requested.setdefault(data.project, {})[envelope.id] = None
        if is_request and data.awaits_index:
            self._waiting.setdefault(data.project, {})[envelope.id] = envelope
        if envelope.causation_id:
            self._answered.add(envelope.causation_id)
            self._waiting.get(data.project, {}).pop(envelope.causation_id, None)

    def cover(self, project: str, upto: Mapping[str, int]) -> None:
        """Note that records before ``upto`` are in a build, or asked for."""
        covered = self._built_upto.setdefault(project, {})
        for partition, end in upto.items():
            covered[partition] = max(end, covered.get(partition, 0))

    def built_upto(self, project: str) -> dict[str, int]:
        """Return, by partition, the offset up to which records were built or are being built."""
        return dict(self._built_upto.get(project, {}))

    def has_requested(self, project: str, request_id: str) -> bool:
        """Tell whether a ``dataset.requested`` that names its records, or waits to, is on the log."""
        return request_id in self._requested.get(project, {})

    def waiting(self, project: str) -> list[Envelope[DatasetRequested]]:
        """Return the requests that wait for the project's first index."""
        return list(self._waiting.get(project, {}).values())

    def projects_waiting(self) -> list[str]:
        """Return the projects that ``waiting`` is about."""
        return [project for project, waiting in self._waiting.items() if waiting]

    def has_answered(self, request_id: str) -> bool:
        """Tell whether a ``dataset.requested`` has its outcome on the log."""
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
        """Tell whether a request that names its records waits for its outcome.

        Requests of a project are answered in their order, so the newest tells; one that became a dead letter
        waits for nothing once a later one is there.
        """
        newest = next(reversed(self._requested.get(project, {})), None)
        return newest is not None and newest not in self._answered
