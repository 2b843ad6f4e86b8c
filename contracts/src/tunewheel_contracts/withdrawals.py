"""Withdrawn documents, tickets and examples, folded from the log. The order of reading makes no difference.

A withdrawal has a moment: ``withdrawn_at``, or else the event's own time. It covers all publications of the
document up to and including that moment. A later publication brings the document back. Only these times
count, so the partitions and the order in which the two topics are read make no difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.upstream import DocumentWithdrawn
from tunewheel_contracts.fields import Frozen, SourceId, Timestamp

DOCUMENT = "document"


class Withdrawal(Frozen):
    """Publications of ``document_id`` up to ``until`` are withdrawn."""

    document_id: SourceId
    kind: Annotated[str, Field(exclude_if=lambda kind: kind == DOCUMENT)] = DOCUMENT
    until: Timestamp


def ends_of(positions: Iterable[tuple[int, int]]) -> dict[str, int]:
    """Return, by partition, the offset after the last of ``positions``, pairs of partition and offset."""
    return {str(partition): offset + 1 for partition, offset in sorted(positions)}


class Withdrawals:
    """All withdrawals so far. Applying an event twice changes nothing."""

    def __init__(self) -> None:
        self._by_project: dict[str, dict[tuple[int, int], Withdrawal]] = {}
        self._latest: dict[tuple[str, str], datetime] = {}

    def apply(self, envelope: Envelope[Any], partition: int, offset: int) -> None:
        """Add one event and its position on the log."""
        data = envelope.data
        if isinstance(data, DocumentWithdrawn):
            until = data.withdrawn_at or envelope.time
            withdrawal = Withdrawal(document_id=data.document_id, kind=data.kind, until=until)
            self._by_project.setdefault(data.project, {})[partition, offset] = withdrawal
            if data.kind == DOCUMENT:
                before = self._latest.setdefault((data.project, data.document_id), until)
                self._latest[data.project, data.document_id] = max(before, until)

    def takes(self, project: str, document_id: str, published_at: datetime) -> bool:
        """Return whether the publication of a document at ``published_at`` is withdrawn."""
        until = self._latest.get((project, document_id))
        return until is not None and published_at <= until

    def upto(self, project: str) -> dict[str, int]:
        """Return, by partition, the offset after the project's last known withdrawal."""
        return ends_of(self._by_project.get(project, ()))

    def of(self, project: str) -> tuple[Withdrawal, ...]:
        """Return the latest known withdrawal of each source of ``project``."""
        return self.before(project, self.upto(project))

    def before(self, project: str, upto: Mapping[str, int]) -> tuple[Withdrawal, ...]:
        """Return the latest withdrawal of each source before the offsets ``upto``, sorted by id."""
        latest: dict[tuple[str, str], Withdrawal] = {}
        for (partition, offset), withdrawal in self._by_project.get(project, {}).items():
            if offset >= upto.get(str(partition), 0):
                continue
            source = (withdrawal.document_id, withdrawal.kind)
            if source not in latest or latest[source].until < withdrawal.until:
                latest[source] = withdrawal
        return tuple(latest[source] for source in sorted(latest))
