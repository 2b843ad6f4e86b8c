"""What the right to be forgotten (GDPR article 17) took out: folded from the log, applied to every row.

An erasure takes what was published up to its moment (``requested_at``, else the event's own time) about a
person or from a source. What happened before that moment and is published again later stays out as well: a
file that is sent once more must not bring anybody back. What happens afterwards is new.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import polars as pl
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_contracts.fields import Frozen, SourceId, Timestamp


class Erasure(Frozen):
    """Everything up to ``until`` of one ``customer`` or one ``source_id``; the other is None."""

    project: str
    customer: SourceId | None = None
    source_id: SourceId | None = None
    until: Timestamp

    @property
    def document_id(self) -> str:
        """What a document that it takes is called: of those the id is also the group."""
        return self.source_id or self.customer or ""


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

    def apply(self, envelope: Envelope[Any]) -> None:
        """Take note of one event."""
        if isinstance(envelope.data, ErasureRequested):
            self.asked_by(envelope)

    def asked_by(self, event: Envelope[ErasureRequested]) -> Erasure:
        """Return what ``event`` asks for, up to the moment at which it was asked for first."""
        known, erasure = self._by_project.setdefault(event.project, {}), erasure_of(event)
        first = known.get(event.id, erasure)
        known[event.id] = min(first, erasure, key=lambda asked: asked.until)
        return known[event.id]

    def of(self, project: str) -> tuple[Erasure, ...]:
        """Return the erasures of ``project`` in an order that does not depend on the log's."""
        known = self._by_project.get(project, {})
        return tuple(known[event_id] for event_id in sorted(known))

    def all(self) -> tuple[Erasure, ...]:
        """Return the erasures of every project."""
        return tuple(erasure for project in sorted(self._by_project) for erasure in self.of(project))


def erased(erasures: Iterable[Erasure]) -> pl.Expr:
    """Return, for rows of the record table, whether one of ``erasures`` takes them."""
    expression = pl.lit(False)
    for erasure in erasures:
        subject = (
            pl.col("group") == erasure.customer
            if erasure.customer is not None
            else pl.col("source_id") == erasure.source_id
        )
        until = pl.lit(erasure.until, dtype=pl.Datetime("us", "UTC"))
        before = (pl.col("published_at") <= until) | (pl.col("occurred_at") <= until).fill_null(False)
        expression = expression | ((pl.col("project") == erasure.project) & subject & before)
    return expression
