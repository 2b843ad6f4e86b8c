"""Decides what an erasure (GDPR article 17) covers, from ``erasure.requested``.

An erasure has a moment: ``requested_at``, or else the event's own time. It covers all data about a person, or
from a source, that was published up to that moment. Data from before the moment that is published again later
is covered too, so that sending a file once more brings nobody back. Data from after the moment is not
covered.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import ErasureCompleted
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_contracts.fields import Frozen, SourceId, Timestamp
from tunewheel_contracts.identity import content_sha256

HOLDERS = ("curate", "ingest", "eval", "monitor", "serve-gateway", "index")
"""The services that hold published data. An erasure is complete when each of them has published its proof."""


class Erasure(Frozen):
    """One erasure: all data up to ``until`` about one ``customer`` or from one ``source_id``; the other is
    None."""

    project: str
    customer: SourceId | None = None
    source_id: SourceId | None = None
    until: Timestamp

    @property
    def subject(self) -> str:
        """The person or the source. A document's id is also its group, so it may be in either field."""
        return self.source_id or self.customer or ""

    def takes(self, *, project: str, customer: str | None, source_id: str | None, at: datetime) -> bool:
        """Return whether the erasure covers data that was published ``at`` about a person or from a
        source."""
        named = self.customer == customer if self.customer is not None else self.source_id == source_id
        return named and project == self.project and at <= self.until


def erasure_of(event: Envelope[ErasureRequested]) -> Erasure:
    """Return the erasure that an event asks for."""
    data = event.data
    return Erasure(
        project=data.project,
        customer=data.customer,
        source_id=data.source_id,
        until=data.requested_at or event.time,
    )


class Erasures:
    """All erasures so far. Applying an event twice changes nothing.

    A request that is sent again, perhaps with a later time, keeps its first moment. It does not cover data
    that was published since.
    """

    def __init__(self) -> None:
        self._by_project: dict[str, dict[str, Erasure]] = {}
        self._by_subject: dict[_Subject, dict[str, Erasure]] = {}

    def apply(self, envelope: Envelope[Any]) -> None:
        """Add one event."""
        if isinstance(envelope.data, ErasureRequested):
            self.asked_by(envelope)

    def asked_by(self, event: Envelope[ErasureRequested]) -> Erasure:
        """Return the erasure of ``event``, with the moment of the first request."""
        erasures, erasure = self._by_project.setdefault(event.project, {}), erasure_of(event)
        first = erasures.get(event.id, erasure)
        erasures[event.id] = asked = min(first, erasure, key=lambda one: one.until)
        self._by_subject.get(_subject_of(first), {}).pop(event.id, None)
        self._by_subject.setdefault(_subject_of(asked), {})[event.id] = asked
        return asked

    def of(self, project: str) -> tuple[Erasure, ...]:
        """Return the erasures of ``project``, in an order that does not depend on the order of the log."""
        erasures = self._by_project.get(project, {})
        return tuple(erasures[event_id] for event_id in sorted(erasures))

    def by_request(self) -> dict[str, Erasure]:
        """Return the erasures of every project by the id of the event that asked for it."""
        return {name: erasure for erasures in self._by_project.values() for name, erasure in erasures.items()}

    def all(self) -> tuple[Erasure, ...]:
        """Return the erasures of every project."""
        return tuple(erasure for project in sorted(self._by_project) for erasure in self.of(project))

    def take(self, *, project: str, customer: str | None, source_id: str | None, at: datetime) -> bool:
        """Return whether any erasure covers data that was published ``at`` about a person or from a source.
        Only the erasures that name the person or the source are compared, so the time does not grow with
        their number."""
        by_person = self._by_subject.get((project, customer, None), {}) if customer is not None else {}
        by_source = self._by_subject.get((project, None, source_id), {})
        return any(at <= one.until for one in (*by_person.values(), *by_source.values()))


_Subject = tuple[str, str | None, str | None]
"""A project, and the person or the source that an erasure names; the other is None."""


def _subject_of(erasure: Erasure) -> _Subject:
    is_person = erasure.customer is not None
    return erasure.project, erasure.customer, None if is_person else erasure.source_id


def place_of(project: str, request_id: str) -> str:
    """Return the path in the object store below which holders write their findings. ``request_id``: id of the
    ``erasure.requested`` event."""
    return f"erasures/{project}/{content_sha256(request_id.encode())[:32]}"


def proof_of(
    asked: ErasureRequested | ErasureCompleted, *, holder: str, erased_by: str, records: int, **found: Any
) -> ErasureCompleted:
    """Return the proof that ``holder`` publishes after it carried out the erasure. ``found``: further fields.

    ``asked``: the request, or another holder's proof, which repeats the request.
    """
    return ErasureCompleted(
        project=asked.project,
        erasure_id=asked.erasure_id,
        holder=holder,
        customer=asked.customer,
        source_id=asked.source_id,
        requested_by=asked.requested_by,
        erased_by=erased_by,
        completed_at=datetime.now(UTC),
        records=records,
        **found,
    )
