"""What the right to be forgotten (GDPR article 17) takes out: a fold over ``erasure.requested``.

An erasure takes what was published up to its moment (``requested_at``, else the event's own time) about a
person or from a source. What happened before that moment and is published again later stays out as well: a
file that is sent once more must not bring anybody back. What happens afterwards is new.
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
"""Who holds what people published, each for itself: an erasure is done when all have said so."""


class Erasure(Frozen):
    """Everything up to ``until`` of one ``customer`` or one ``source_id``; the other is None."""

    project: str
    customer: SourceId | None = None
    source_id: SourceId | None = None
    until: Timestamp

    @property
    def subject(self) -> str:
        """The person or the source. A document's id is also its group, so it may stand in either field."""
        return self.source_id or self.customer or ""

    def takes(self, *, project: str, customer: str | None, source_id: str | None, at: datetime) -> bool:
        """Tell whether what was published ``at`` about a person, from a source, is erased."""
        named = self.customer == customer if self.customer is not None else self.source_id == source_id
        return named and project == self.project and at <= self.until


def erasure_of(event: Envelope[ErasureRequested]) -> Erasure:
    """Return what an event asks to erase."""
    data = event.data
    return Erasure(
        project=data.project,
        customer=data.customer,
        source_id=data.source_id,
        until=data.requested_at or event.time,
    )


class Erasures:
    """A fold over ``erasure.requested``; applying an event twice changes nothing.

    A request that comes again, perhaps sent anew and with a later time, asks for what it asked for first:
    what was published since is not erased by it.
    """

    def __init__(self) -> None:
        self._by_project: dict[str, dict[str, Erasure]] = {}
        self._by_subject: dict[_Subject, dict[str, Erasure]] = {}

    def apply(self, envelope: Envelope[Any]) -> None:
        """Take note of one event."""
        if isinstance(envelope.data, ErasureRequested):
            self.asked_by(envelope)

    def asked_by(self, event: Envelope[ErasureRequested]) -> Erasure:
        """Return what ``event`` asks for, up to the moment at which it was asked for first."""
        known, erasure = self._by_project.setdefault(event.project, {}), erasure_of(event)
        first = known.get(event.id, erasure)
        known[event.id] = asked = min(first, erasure, key=lambda one: one.until)
        self._by_subject.get(_subject_of(first), {}).pop(event.id, None)
        self._by_subject.setdefault(_subject_of(asked), {})[event.id] = asked
        return asked

    def of(self, project: str) -> tuple[Erasure, ...]:
        """Return the erasures of ``project`` in an order that does not depend on the log's."""
        known = self._by_project.get(project, {})
        return tuple(known[event_id] for event_id in sorted(known))

    def all(self) -> tuple[Erasure, ...]:
        """Return the erasures of every project."""
        return tuple(erasure for project in sorted(self._by_project) for erasure in self.of(project))

    def take(self, *, project: str, customer: str | None, source_id: str | None, at: datetime) -> bool:
        """Tell whether any erasure takes what was published ``at`` about a person, from a source. Only
        erasures that name the person or the source are looked at, however many there are."""
        by_person = self._by_subject.get((project, customer, None), {}) if customer is not None else {}
        by_source = self._by_subject.get((project, None, source_id), {})
        return any(at <= one.until for one in (*by_person.values(), *by_source.values()))


_Subject = tuple[str, str | None, str | None]
"""A project and what of it an erasure names: a person or a source; the other is None."""


def _subject_of(erasure: Erasure) -> _Subject:
    is_person = erasure.customer is not None
    return erasure.project, erasure.customer, None if is_person else erasure.source_id


def place_of(project: str, request_id: str) -> str:
    """Return the path in the object store below which holders write down what they found, by the id of the
    ``erasure.requested`` event."""
    return f"erasures/{project}/{content_sha256(request_id.encode())[:32]}"


def proof_of(
    asked: ErasureRequested | ErasureCompleted, *, holder: str, erased_by: str, records: int, **found: Any
) -> ErasureCompleted:
    """Return what ``holder`` says once it has carried out what was ``asked``; ``found`` are further fields.

    ``asked`` may be the proof of another holder, which repeats the request.
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
